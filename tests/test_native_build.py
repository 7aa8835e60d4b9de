"""The kernels' library: who builds it, which instruction set it takes, how it is turned off, and what says so."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ctrnn
import ctrnn.cli as cli
from ctrnn import integrate
from ctrnn.native import library as native

ROOT = Path(__file__).parent.parent
WORK = ("rate_forward", "rate_backward", "gated_forward", "gated_backward", "adaptive_search", "adaptive_pullback")
COMPILER = os.environ.get("CXX") or shutil.which("c++")
compiled = pytest.mark.skipif(native.library() is None, reason="the kernels were not compiled")


@pytest.fixture
def afresh(monkeypatch):
    """The library is found again under the environment that a test sets."""
    for name in ("CTRNN_NATIVE", "CTRNN_ISA"):
        monkeypatch.delenv(name, raising=False)
    cached = native._found
    cached.cache_clear()
    yield monkeypatch
    cached.cache_clear()


class Watched:
    """A library that notes which of its kernels are asked for."""

    def __init__(self, library):
        self.library, self.asked = library, set()

    def __getattr__(self, name):
        self.asked.add(name)
        return getattr(self.library, name)


def instruction_sets():
    best = native.instruction_set() or "baseline"
    return native.INSTRUCTION_SETS[: native.INSTRUCTION_SETS.index(best) + 1]


def results(dtype, batch=5):
    """States and gradients of a rate network on fixed and adaptive steps, and of a GRU; all three kernels are asked."""
    generator = torch.Generator().manual_seed(0)
    us = torch.randn(12, batch, 3, generator=generator).to(dtype)
    rate = ctrnn.CTRNN(17, n_in=3, tau=2.0, generator=generator).to(dtype)
    gated = ctrnn.GRU(9, n_in=3, generator=generator).to(dtype)
    found = {}
    for name, net, options in (
        ("Euler", rate, {"dt": 0.5}),
        ("RK4", rate, {"dt": 0.5, "solver": ctrnn.RK4()}),
        ("Tsit5", rate, {"dt": 0.5, "solver": ctrnn.Tsit5(), "steps": ctrnn.Adaptive(1e-5, 1e-5)}),
        ("GRU", gated, {"dt": 1.0}),
    ):
        xs = integrate(net, us, **options).xs
        weights = [p for p in net.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(xs.square().mean(), weights, allow_unused=True)
        found |= {name: [xs.detach(), *[s for s in slopes if s is not None]]}
    return found


# Where the library is


@pytest.mark.skipif(COMPILER is None, reason="this machine has no C++ compiler")
def test_where_there_is_a_compiler_there_are_kernels(afresh):
    assert native.missing() is None
    assert isinstance(native.library(), ctypes.CDLL)


@pytest.mark.parametrize("compiler", ["missing-compiler", "false"])
def test_without_a_compiler_everything_but_the_kernels_is_installed(compiler, tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CXX": compiler})
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.iterdir()
    assert wheel.name == f"ctrnn_sim-{ctrnn.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "ctrnn").rglob("*.py")} <= names
    assert not [name for name in names if name.endswith(".so")]


@compiled
@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm to list symbols")
def test_the_library_shows_its_kernels_once_for_each_instruction_set_and_nothing_else():
    path = native.library()._name
    lines = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in lines.splitlines()}
    kernels = names - {"ctrnn_abi", "ctrnn_isa"}
    assert {name for name in names if not name.startswith("ctrnn_")} == set()
    stems = [
        {name.removesuffix(f"_{isa}") for name in kernels if name.endswith(f"_{isa}")} for isa in instruction_sets()
    ]
    assert len(stems) >= len(instruction_sets())
    assert all(stem == stems[0] for stem in stems)


def test_no_library_a_broken_one_and_one_of_other_sources_are_told_apart(afresh, tmp_path):
    afresh.setenv("CTRNN_LIBRARY", str(tmp_path / "libctrnn.so"))
    assert native.library() is None
    assert "does not exist" in native.missing()
    (tmp_path / "libctrnn.so").write_text("this is no library")
    native._found.cache_clear()
    assert "cannot be loaded" in native.missing()
    assert native.library() is None


@compiled
def test_a_library_with_another_interface_is_not_used(afresh):
    afresh.setattr(native, "ABI", native.ABI + 1)
    assert native.library() is None
    assert "compiled from other sources" in native.missing()


# Turning it off


def test_an_environment_variable_turns_the_kernels_off(afresh):
    afresh.setenv("CTRNN_NATIVE", "0")
    assert native.library() is None
    assert native.instruction_set() is None
    assert native.missing() == "CTRNN_NATIVE=0"
    results(torch.float32)


@compiled
def test_plain_holds_inside_its_block_in_its_own_thread_and_ends_with_an_error():
    there = []
    with ctrnn.plain(), ctrnn.plain():
        assert native.library() is None
        assert native.missing() == "inside ctrnn.plain()"
        thread = threading.Thread(target=lambda: there.append(native.library()))
        thread.start()
        thread.join()
    assert there == [native.library()] != [None]
    with pytest.raises(ZeroDivisionError), ctrnn.plain():
        _ = 1 / 0
    assert native.library() is not None


def test_a_kernel_that_finds_no_memory_says_what_to_do(monkeypatch):
    exhausted = SimpleNamespace(ctrnn_work_baseline=lambda: 1)
    monkeypatch.setattr(native, "_found", lambda: native.Kernels(exhausted, "baseline"))
    with pytest.raises(MemoryError, match=r"ctrnn_work .* take a smaller batch or fewer steps"):
        native.call("ctrnn_work")


# Instruction sets


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", instruction_sets())
def test_every_instruction_set_gives_the_plain_values_and_gradients(isa, dtype, afresh):
    afresh.setenv("CTRNN_ISA", isa)
    assert native.instruction_set() == isa
    watched = Watched(native.library())
    afresh.setattr(native, "_found", lambda: native.Kernels(watched, isa))
    found = results(dtype)
    assert {f"ctrnn_{name}_{isa}" for name in WORK} <= watched.asked
    with ctrnn.plain():
        expected = results(dtype)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 1e-10, "atol": 1e-12}
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=lambda text, name=name: f"{name}: {text}", **close)


@compiled
@pytest.mark.parametrize("isa", instruction_sets())
def test_a_row_has_the_same_bits_alone_and_in_company_under_every_instruction_set(isa, afresh):
    afresh.setenv("CTRNN_ISA", isa)
    generator = torch.Generator().manual_seed(0)
    us = torch.randn(12, 13, 3, generator=generator)
    net = ctrnn.CTRNN(17, n_in=3, generator=generator).requires_grad_(False)
    net.W_in.zero_()  # the drive's product is torch's, whose rows depend on their company
    x0 = torch.randn(13, 17, generator=generator)
    together = integrate(net, us, x0, dt=0.5).xs
    for row in range(13):
        assert torch.equal(integrate(net, us[:, row : row + 1], x0[row : row + 1], dt=0.5).xs[:, 0], together[:, row])


@compiled
@pytest.mark.parametrize("wanted", ["avx1024", "neon"])
def test_an_instruction_set_that_is_not_here_is_refused_by_name(wanted, afresh):
    afresh.setenv("CTRNN_ISA", wanted)
    assert native.library() is None
    assert native.missing() == f"CTRNN_ISA={wanted} is not one of {', '.join(instruction_sets_here(afresh))}"


def instruction_sets_here(monkeypatch):
    monkeypatch.delenv("CTRNN_ISA")
    native._found.cache_clear()
    return instruction_sets()


# What says so


@compiled
def test_doctor_names_the_instruction_set(afresh, capsys):
    assert cli.main(["doctor"]) == 0
    assert native.instruction_set() in line_about_kernels(capsys)


def test_doctor_says_why_there_are_no_kernels(afresh, capsys):
    afresh.setenv("CTRNN_NATIVE", "0")
    assert cli.main(["doctor"]) == 0
    assert "none, plain torch path: CTRNN_NATIVE=0" in line_about_kernels(capsys)


def line_about_kernels(capsys):
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "kernels" in line]
    return line


def test_the_command_line_answers_without_the_loader():
    code = "import sys, ctrnn.cli; ctrnn.cli.main(['list']); sys.exit(any('native' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
@pytest.mark.parametrize("before", ["run()", "torch.ones(10**6).sum()"], ids=["the kernels", "torch"])
def test_a_forked_process_does_not_wait_for_threads_that_its_parent_kept(before):
    code = f"""
import os, signal, torch, ctrnn
torch.set_num_threads(2)
model, x0 = ctrnn.CTRNN(3, 0), torch.ones(2, 3)
run = lambda: ctrnn.integrate(model, None, x0, t_span=(0.0, 1.0), steps=ctrnn.Adaptive())
{before}
child = os.fork()
if child == 0:
    signal.alarm(30)
    run()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

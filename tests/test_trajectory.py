import errno
import json
import os
import struct
import sys

import pytest
import torch
import xarray

from ctrnn import Adaptive, At, Held, Silence, Status, Trajectory, integrate
from ctrnn._files import FileFormatError, read_tensors, write_tensors
from ctrnn._tree import leaves, named
from ctrnn.bidirectional import Bidirectional
from ctrnn.models import CTRNN, LSTM, LinearSystem, Stack


def runs():
    """Trajectories of every kind: plain, of several parts, nested, ragged, silent, with own times, unfinished."""
    g = torch.Generator().manual_seed(0)
    us = torch.randn(5, 3, 2, generator=g, dtype=torch.float64)
    lengths = torch.tensor([5, 2, 3])
    edges = torch.arange(6.0, dtype=torch.float64)[:, None] * torch.tensor([0.1, 0.2, 0.3])
    ctrnn, lstm = CTRNN(3, 2, generator=g).double(), LSTM(3, 2, 4, generator=g).double()
    return {
        "plain": integrate(ctrnn, us, dt=0.1),
        "one": integrate(ctrnn, us[:, 0], dt=0.1),
        "float32": integrate(CTRNN(3, 2).float(), us.float(), dt=0.1),
        "parts": integrate(lstm, us, dt=0.1),
        "nested": integrate(Stack([lstm, CTRNN(2, 4).double()]), us, dt=0.1),
        "bidirectional": Bidirectional(ctrnn, lstm)(us, dt=0.1),
        "ragged": integrate(ctrnn, Held(us, 0.1, lengths=lengths)),
        "silent": integrate(LinearSystem.example(), Silence(), t_span=(0.0, 1.0), dt=0.25),
        "own times": integrate(ctrnn, Held(us, edges=edges)),
        "unfinished": integrate(ctrnn, us, dt=0.5, steps=Adaptive(1e-9, 1e-9, max_steps=30), on_failure="return"),
    }


RUNS = list(runs())


def description(x):
    return [(name, leaf.shape, leaf.dtype) for name, leaf in named(x)]


@pytest.fixture(scope="module")
def every():
    return runs()


@pytest.mark.parametrize("name", RUNS)
def test_a_loaded_trajectory_is_the_saved_one_bit_for_bit(every, name, tmp_path):
    run = every[name]
    run.save(tmp_path / "run.safetensors")
    again = Trajectory.load(tmp_path / "run.safetensors")
    assert type(again.xs).__name__ == type(run.xs).__name__
    assert description(again.xs) == description(run.xs)
    assert type(again.stats) is type(run.stats)
    for field, value in zip(run._fields, run, strict=True):
        got = getattr(again, field)
        assert (got is None) == (value is None)
        if value is not None:
            for a, b in zip(leaves(got), leaves(value), strict=True):
                assert a.dtype == b.dtype
                assert not a.requires_grad
                assert torch.equal(a.nan_to_num(-7.0), b.detach().nan_to_num(-7.0))


def test_a_loaded_state_continues_a_run(tmp_path):
    model = LSTM(3, 2)
    us = torch.randn(6, 2, 2)
    whole = integrate(model, us, dt=1.0)
    integrate(model, us[:3], dt=1.0).save(tmp_path / "half")
    half = Trajectory.load(tmp_path / "half")
    rest = integrate(model, us[3:], model.initial_state()._make(leaf[-1] for leaf in half.xs), dt=1.0)
    assert torch.equal(rest.ys, whole.ys[3:])
    foreign = type(half.xs)(*[leaf[-1] for leaf in half.xs])
    assert torch.equal(integrate(model, us[3:], foreign, dt=1.0).ys, whole.ys[3:])


def test_a_truncated_file_is_refused(every, tmp_path):
    every["nested"].save(tmp_path / "run")
    content = (tmp_path / "run").read_bytes()
    for size in (0, 5, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(FileFormatError, match="cut"):
            Trajectory.load(tmp_path / "cut")


def test_a_file_of_another_kind_is_refused(tmp_path):
    CTRNN(3, 2).save(tmp_path / "model")
    with pytest.raises(FileFormatError, match=r"'model', not a trajectory.*Trajectory\.save"):
        Trajectory.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        Trajectory.load(tmp_path / "none")


def nest(depth):
    value = None
    for _ in range(depth):
        value = {"name": "S", "fields": [], "parts": [value]}
    return value


HOSTILE = [
    {},
    {"xs": 5},
    {"xs": "x"},
    {"xs": []},
    {"xs": {"name": "S", "fields": ["h"], "parts": []}},
    {"xs": {"name": "S", "fields": ["h", "c"], "parts": [None]}},
    {"xs": {"name": "S", "fields": ["__class__"], "parts": [None]}},
    {"xs": {"name": "S", "fields": ["h: __import__('os').system('touch hacked')"], "parts": [None]}},
    {"xs": {"name": "S():\n import os", "fields": ["h"], "parts": [None]}},
    {"xs": {"name": 5, "fields": 7, "parts": None}},
    {"xs": {"name": "S", "fields": ["h", "h"], "parts": [None, None]}},
    {"xs": nest(300)},
]


@pytest.mark.parametrize("document", HOSTILE, ids=lambda d: str(d)[:40])
def test_a_hostile_description_of_the_state_is_refused_and_runs_nothing(every, tmp_path, monkeypatch, document):
    monkeypatch.chdir(tmp_path)
    every["plain"].save("run")
    tensors, _ = read_tensors("run")
    write_tensors("bad", tensors, {"kind": "trajectory", **document})
    with pytest.raises(FileFormatError, match="bad"):
        Trajectory.load("bad")
    assert sorted(os.listdir()) == ["bad", "run"]


@pytest.mark.parametrize("part", ["ts", "xs", "ys", "stats.status"])
def test_a_file_with_a_missing_or_misshapen_part_is_refused(every, tmp_path, part):
    every["plain"].save(tmp_path / "run")
    tensors, metadata = read_tensors(tmp_path / "run")
    without = {name: value for name, value in tensors.items() if name != part}
    write_tensors(tmp_path / "less", without, metadata)
    with pytest.raises(FileFormatError, match=f"less.*{part}.*write it again"):
        Trajectory.load(tmp_path / "less")
    if part in ("xs", "ys"):
        write_tensors(tmp_path / "odd", tensors | {part: tensors[part][:2]}, metadata)
        with pytest.raises(FileFormatError, match=r"odd.*in front"):
            Trajectory.load(tmp_path / "odd")


def test_a_header_that_is_no_json_object_is_refused(every, tmp_path):
    header = json.dumps({"__metadata__": {"ctrnn": "[]"}}).encode()
    (tmp_path / "list").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(FileFormatError, match="list"):
        Trajectory.load(tmp_path / "list")


def test_a_full_disk_keeps_the_trajectory_in_memory_and_the_old_file(every, tmp_path, monkeypatch):
    every["plain"].save(tmp_path / "run")
    before = (tmp_path / "run").read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="free space") as caught:
        every["parts"].save(tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert (tmp_path / "run").read_bytes() == before
    every["parts"].save(tmp_path / "run")


@pytest.mark.parametrize("name", RUNS)
def test_a_dataset_holds_every_number_under_named_dimensions(every, name):
    run = every[name]
    data = run.to_xarray()
    batch = run.stats.steps.ndim
    assert data.sizes["time"] == len(run.ts)
    for part, leaf in named(run.xs):
        column = data["x" if not part else f"x_{part.replace('.', '_')}"]
        assert column.dims[: 1 + batch] == ("time", *[f"batch_{i}" for i in range(batch)])
        assert torch.equal(torch.from_numpy(column.values.copy()).nan_to_num(-7.0), leaf.detach().nan_to_num(-7.0))
    assert (data["status"].values == run.stats.status.numpy()).all()
    assert ("u" in data) == (run.us is not None)
    assert ("mask" in data) == (run.mask is not None)
    times = data["time"] if run.ts.ndim == 1 else data["t"]
    assert (times.values == run.ts.detach().numpy()).all()


def test_a_dataset_survives_a_netcdf_file(every, tmp_path):
    data = every["nested"].to_xarray()
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as again:
        assert (again["y"].values == data["y"].values).all()


def test_without_xarray_the_way_to_get_it_is_named(every, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"ctrnn-sim\[xarray\]"):
        every["plain"].to_xarray()


def test_an_unfinished_run_among_them_was_cut_in_its_middle(every):
    run = every["unfinished"]
    assert (run.stats.status == Status.MAX_STEPS_REACHED).all()
    assert torch.isnan(run.xs[-1]).all()
    assert not torch.isnan(run.xs[0]).any()


def test_times_asked_for_are_times_returned(every):
    run = integrate(LinearSystem.example(), t_span=(0.0, 1.0), save=At([0.3, 0.9]))
    assert run.ts.tolist() == [0.3, 0.9]
    assert run._fields == ("ts", "xs", "us", "ys", "mask", "stats")

import collections
import errno
import functools
import json
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from ctrnn._files import FileFormatError, read_tensors, write_tensors
from ctrnn.adjoints import Backprop
from ctrnn.learning import RatePenalty, TrainingError, Uniform, fit, fit_ensemble
from ctrnn.learning.checkpoint import pack, unpack
from ctrnn.models import CTRNN
from ctrnn.tasks import FlipFlop

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
TASK = FlipFlop(bits=1, duration=5.0)
SHORT = {"updates": 6, "batch": 4, "dt": 0.5, "optimizer": ADAM}


def network(n=4, seed=0, **options):
    return CTRNN(n, 1, 1, generator=torch.Generator().manual_seed(seed), **options)


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


class Stopped(Exception):
    """What stands for a crash in the middle of a training."""


def stop_after(fraction):
    def progress(done):
        if done >= fraction:
            raise Stopped

    return progress


def interrupted(path, call=fit, model=None, fraction=0.5, **options):
    with pytest.raises(Stopped):
        call(network() if model is None else model, TASK, **options, checkpoint=path, progress=stop_after(fraction))


OPTIMIZERS = {
    "Adam": ADAM,
    "AdamW amsgrad": functools.partial(torch.optim.AdamW, lr=1e-2, amsgrad=True),
    "SGD": functools.partial(torch.optim.SGD, lr=1e-2),
    "SGD momentum": functools.partial(torch.optim.SGD, lr=1e-2, momentum=0.9, nesterov=True),
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=1e-3, momentum=0.5, centered=True),
    "Adagrad": functools.partial(torch.optim.Adagrad, lr=1e-2),
    "Rprop": torch.optim.Rprop,
}
SCHEDULES = {
    "step": functools.partial(StepLR, step_size=2),
    "cosine": functools.partial(CosineAnnealingLR, T_max=6),
    "milestones": functools.partial(MultiStepLR, milestones=[2, 4, 5]),
    "one cycle": functools.partial(OneCycleLR, max_lr=0.1, total_steps=7),
    "plateau": functools.partial(ReduceLROnPlateau, patience=0),
    "function": lambda o: LambdaLR(o, lambda k: 1 / (1 + k)),
    "sequence": lambda o: SequentialLR(o, [LinearLR(o, total_iters=3), StepLR(o, 1)], milestones=[3]),
}
CASES = [({"optimizer": o}, n) for n, o in OPTIMIZERS.items()] + [({"schedule": s}, n) for n, s in SCHEDULES.items()]


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # SequentialLR itself uses it
@pytest.mark.parametrize("options", [case for case, _ in CASES], ids=[name for _, name in CASES])
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one_bit_for_bit(tmp_path, options):
    options = SHORT | {"dt": Uniform(0.2, 0.5), "noise": 0.1, "clip": 1.0, "evaluate_every": 2} | options
    model = network(learn_tau=True)
    whole = fit(model, TASK, **options)
    interrupted(tmp_path / "c", model=model, fraction=4 / 6, checkpoint_every=3, **options)
    resumed = fit(network(seed=9, learn_tau=True), TASK, **options, checkpoint=tmp_path / "c", checkpoint_every=3)
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert resumed.history == whole.history
    assert (resumed.score, resumed.gap) == (whole.score, whole.gap)


def test_a_checkpoint_loses_less_than_an_interval(tmp_path):
    interrupted(tmp_path / "c", fraction=5 / 6, checkpoint_every=2, **SHORT)
    assert read_tensors(tmp_path / "c")[1]["update"] == 4


def test_float32_resumes_bit_for_bit_too(tmp_path):
    whole = fit(network().float(), TASK, **SHORT)
    interrupted(tmp_path / "c", model=network().float(), checkpoint_every=1, **SHORT)
    resumed = fit(network().float(), TASK, **SHORT, checkpoint=tmp_path / "c")
    assert weights(resumed.model).dtype == torch.float32
    assert torch.equal(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"activation": torch.relu}, "model.activation = 'tanh' there, 'relu' here"),
        ({"tau": 3.0}, "model.tau = 1.0 there, 3.0 here"),
        ({"tau": torch.linspace(1.0, 3.0, 4)}, "model.tau = 1.0 there, [1.0, 1.66"),
    ],
)
def test_another_network_of_the_same_shapes_is_refused(tmp_path, other, named):
    fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=re.escape(named)):
        fit(network(**other), TASK, **SHORT | {"updates": 8}, checkpoint=tmp_path / "c")


def test_another_tau_or_function_is_refused_where_a_network_has_no_config(tmp_path):
    fit(network(activation=lambda x: x.sin()), TASK, **SHORT, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"model\.tau = \{'tau0': 1\.0\} there, \{'tau0': 3\.0\} here"):
        fit(network(activation=lambda x: x.sin(), tau=3.0), TASK, **SHORT, checkpoint=tmp_path / "c")

    def cubic(x):
        return x - x**3

    with pytest.raises(ValueError, match=r"model\.activation = .*cubic"):
        fit(network(activation=cubic), TASK, **SHORT, checkpoint=tmp_path / "c")


def test_every_network_of_an_ensemble_must_be_the_one_that_was_saved(tmp_path):
    fit_ensemble([network(tau=tau) for tau in (1.0, 2.0)], TASK, **SHORT, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"model\.tau = 1\.0, 2\.0 there, 1\.0, 4\.0 here"):
        fit_ensemble([network(tau=tau) for tau in (1.0, 4.0)], TASK, **SHORT, checkpoint=tmp_path / "c")


def test_an_ensemble_resumes_bit_for_bit(tmp_path):
    models = [network(seed=seed) for seed in range(3)]
    whole = fit_ensemble(models, TASK, **SHORT)
    interrupted(tmp_path / "c", call=fit_ensemble, model=models, checkpoint_every=2, **SHORT)
    for a, b in zip(fit_ensemble(models, TASK, **SHORT, checkpoint=tmp_path / "c"), whole, strict=True):
        assert torch.equal(weights(a.model), weights(b.model))
        assert a.history == b.history


def test_a_finished_training_is_read_and_can_be_prolonged(tmp_path):
    first = fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c")
    content = (tmp_path / "c").read_bytes()
    again = fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c", progress=stop_after(0))
    assert torch.equal(weights(again.model), weights(first.model))
    assert (tmp_path / "c").read_bytes() == content
    longer = fit(network(), TASK, **SHORT | {"updates": 9}, checkpoint=tmp_path / "c")
    assert torch.equal(weights(longer.model), weights(fit(network(), TASK, **SHORT | {"updates": 9}).model))
    with pytest.raises(ValueError, match=r"9 updates behind it, more than updates=6: ask for more"):
        fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 5}, "batch = 4 there, 5 here"),
        ({"dt": 0.25}, "dt = 0.5 there, 0.25 here"),
        ({"seed": 1}, r"seed = \[0\] there, \[1\] here"),
        ({"clip": 1.0}, "clip = None there, 1.0 here"),
        ({"noise": 0.1}, "noise = None there, 0.1 here"),
        ({"penalties": [RatePenalty(0.1)]}, "penalties.*RatePenalty"),
        ({"optimizer": functools.partial(torch.optim.Adam, lr=0.5)}, "optimizer = .*0.01.*there.*0.5"),
        ({"optimizer": torch.optim.SGD}, "optimizer = Adam.* there, SGD"),
        ({"schedule": SCHEDULES["step"]}, "schedule = None there, StepLR"),
        ({"held_out": FlipFlop(bits=1)}, r"held_out = FlipFlop\(bits=1, duration=5.0"),
    ],
)
def test_another_training_does_not_go_on_from_a_checkpoint(tmp_path, change, message):
    fit(network(), TASK, **SHORT | {"updates": 1}, checkpoint=tmp_path / "c")
    content = (tmp_path / "c").read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another training: .*{message}.*give another path"):
        fit(network(), TASK, **SHORT | change, checkpoint=tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == content


@pytest.mark.parametrize("other", [lambda: network(5), lambda: network().float(), lambda: network(learn_tau=True)])
def test_another_network_does_not_go_on_from_a_checkpoint(tmp_path, other):
    fit(network(), TASK, **SHORT | {"updates": 1}, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"another training: .*parameters = "):
        fit(other(), TASK, **SHORT, checkpoint=tmp_path / "c")


def test_neither_budget_nor_files_nor_other_start_weights_are_another_training(tmp_path):
    interrupted(tmp_path / "c", checkpoint_every=3, **SHORT)
    options = SHORT | {"adjoint": Backprop(), "log_every": 2, "metrics": tmp_path / "m", "checkpoint_every": 1}
    resumed = fit(network(seed=7), TASK, **options, checkpoint=tmp_path / "c")
    assert torch.equal(weights(resumed.model), weights(fit(network(), TASK, **SHORT).model))


def test_metrics_are_continued_from_the_checkpoint_without_gap_or_repetition(tmp_path):
    path = tmp_path / "m"
    interrupted(tmp_path / "c", fraction=5 / 6, checkpoint_every=2, metrics=path, **SHORT)
    before = path.read_text().splitlines()
    assert [json.loads(line)["update"] for line in before] == [1, 2, 3, 4, 5]
    path.write_text("\n".join(before) + '\n{"update": 6, "lo')
    fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c", metrics=path)
    after = path.read_text().splitlines()
    assert after[:5] == before
    assert [json.loads(line)["update"] for line in after] == [1, 2, 3, 4, 5, 6]


def test_a_training_that_breaks_leaves_its_last_checkpoint(tmp_path):
    class Breaking(FlipFlop):
        def loss(self, ys, trials):
            object.__setattr__(self, "count", getattr(self, "count", 0) + 1)
            return super().loss(ys, trials) * (math.nan if self.count == 4 else 1)

    with pytest.raises(TrainingError, match=r"update 4 .*The last checkpoint, .*c, is unharmed"):
        fit(network(), Breaking(bits=1, duration=5.0), **SHORT, checkpoint=tmp_path / "c", checkpoint_every=2)
    assert read_tensors(tmp_path / "c")[1]["update"] == 2


def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_to_do(tmp_path, monkeypatch):
    replace, count = os.replace, 0

    def full_at_the_third(*args):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_at_the_third)
        with pytest.raises(OSError, match=r"c: No space left.*free space.*unchanged"):
            fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c", checkpoint_every=2)
    assert read_tensors(tmp_path / "c")[1]["update"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]
    resumed = fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c")
    assert torch.equal(weights(resumed.model), weights(fit(network(), TASK, **SHORT).model))


@pytest.mark.parametrize("file", ["checkpoint", "metrics"])
def test_a_file_that_cannot_be_written_is_reported_before_the_first_update(tmp_path, file):
    with pytest.raises(OSError, match="create its folder first"):
        fit(network(), TASK, **SHORT | {file: tmp_path / "no" / "such"}, progress=stop_after(0))


class Stateful(StepLR):
    """A schedule with a function in its state."""

    def state_dict(self):
        return super().state_dict() | {"rule": math.sin}


def test_a_schedule_that_cannot_be_stored_is_refused_before_the_first_update(tmp_path):
    options = SHORT | {"schedule": functools.partial(Stateful, step_size=1)}
    with pytest.raises(TypeError, match=r"0\.schedule\.rule is a builtin_function.*checkpoint cannot hold"):
        fit(network(), TASK, **options, checkpoint=tmp_path / "c", progress=stop_after(0))
    assert list(tmp_path.iterdir()) == []
    assert issubclass(Stateful, LRScheduler)


def test_a_nest_of_numbers_words_and_tensors_comes_back_as_it_was():
    nest = {
        "a": [1, 2.5, True, None, "w", (1, (2,)), []],
        3: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan},
        "milestones": collections.Counter({2: 1}),
        "t": torch.eye(2),
    }
    tensors = {}
    document = json.loads(json.dumps(pack(nest, "x", tensors), allow_nan=False))
    back = unpack(document, tensors)
    assert back["a"] == nest["a"]
    assert isinstance(back["a"][5], tuple)
    assert math.isnan(back[3].pop("nan"))
    assert back[3] == {"inf": math.inf, "-inf": -math.inf}
    assert type(back["milestones"]) is collections.Counter
    assert torch.equal(back["t"], torch.eye(2))
    assert list(tensors) == ["x.t"]


# Files that are not what they should be.


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def refused(folder, monkeypatch, message="."):
    monkeypatch.chdir(folder)
    content = Path("c").read_bytes()
    with pytest.raises(FileFormatError, match=message):
        fit(network(), TASK, **SHORT, checkpoint="c")
    assert Path("c").read_bytes() == content
    assert os.listdir() == ["c"]


@pytest.mark.parametrize("content", [b"", b"weights", pickle.dumps(Hostile())], ids=["empty", "text", "pickle"])
def test_a_foreign_checkpoint_is_refused_and_never_executed(tmp_path, monkeypatch, content):
    (tmp_path / "c").write_bytes(content)
    refused(tmp_path, monkeypatch, "cannot read c")


def test_a_model_is_no_checkpoint(tmp_path, monkeypatch):
    network().save(tmp_path / "c")
    refused(tmp_path, monkeypatch, "c holds a 'model', not a training")


def test_a_truncated_checkpoint_is_refused(tmp_path, monkeypatch):
    fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c")
    whole = (tmp_path / "c").read_bytes()
    for length in range(0, len(whole), len(whole) // 7):
        (tmp_path / "c").write_bytes(whole[:length])
        refused(tmp_path, monkeypatch)


def forgeries(document, tensors):
    """Ways in which a file with the right configuration can lie."""
    learner = document["learners"][0]
    groups = dict(learner["optimizer"]["dict"])["param_groups"][0]["dict"]

    def group(key, value):
        return lambda: groups.__setitem__([k for k, _ in groups].index(key), [key, value])

    yield "no update", lambda: document.pop("update")
    yield "an update in words", lambda: document.update(update="6")
    yield "a negative update", lambda: document.update(update=-1)
    yield "too many updates", lambda: document.update(update=10**9)
    yield "no learner", lambda: document.update(learners=[])
    yield "learners that are a number", lambda: document.update(learners=3)
    yield "no optimiser", lambda: learner.pop("optimizer")
    yield "an optimiser that is a list", lambda: learner.update(optimizer=[1, 2])
    yield "an unknown kind", lambda: learner.update(optimizer={"object": "os.system"})
    yield "a tensor that is not there", lambda: learner.update(optimizer={"tensor": "x"})
    strangers = ["state", {"dict": [[99, {"dict": []}]]}]
    yield "state of other parameters", lambda: learner["optimizer"]["dict"].__setitem__(0, strangers)
    yield "a learning rate in words", group("lr", "0.1")
    yield "betas that are a list", group("betas", [0.9, 0.999])
    yield "other parameters", group("params", [5, 6])
    yield "another option", lambda: groups.append(["step", "os.system"])
    yield "a missing weight", lambda: tensors.pop("0.model.W_rec")
    yield "a weight of another shape", lambda: tensors.update({"0.model.W_rec": torch.ones(2)})
    yield "a weight of another dtype", lambda: tensors.update({"0.model.W_rec": torch.ones(4, 4, dtype=torch.int64)})
    yield "no history", lambda: tensors.pop("0.history")
    yield "scores in words", lambda: learner.update(scores="good")


FORGERIES = 20


@pytest.mark.parametrize("number", range(FORGERIES))
def test_a_checkpoint_that_lies_is_refused(tmp_path, monkeypatch, number):
    fit(network(), TASK, **SHORT, checkpoint=tmp_path / "c")
    tensors, document = read_tensors(tmp_path / "c")
    every = list(forgeries(document, tensors))
    assert len(every) == FORGERIES
    every[number][1]()
    write_tensors(tmp_path / "c", tensors, document)
    refused(tmp_path, monkeypatch, "cannot resume from c: .*delete the file to start afresh")


# The children of one process, which has imported torch for all of them, are killed in the middle of their training.
KILLS = """
import functools, json, os, pathlib, random, signal, sys, time
import torch
from ctrnn._files import read_tensors
from ctrnn.learning import fit
from ctrnn.models import CTRNN
from ctrnn.tasks import FlipFlop

torch.set_num_threads(1)
EVERY, UPDATES, folder = 7, 120, pathlib.Path(sys.argv[1])
model = CTRNN(4, 1, 1, generator=torch.Generator().manual_seed(0), learn_tau=True)
# What torch imports at its first step is imported before the forks; autograd itself must not have run in the parent.
warm = torch.nn.Parameter(torch.zeros(1))
warm.grad = torch.zeros(1)
torch.optim.Adam([warm]).step()

def train(name):
    child = os.fork()
    if child:
        return child
    try:
        fit(model, FlipFlop(bits=1, duration=5.0), updates=UPDATES, batch=4, dt=0.5, checkpoint=folder / name,
            optimizer=functools.partial(torch.optim.Adam, lr=1e-2), checkpoint_every=EVERY, metrics=folder / "metrics")
    finally:
        os._exit(1 if sys.exc_info()[0] else 0)

def lines():
    text = (folder / "metrics").read_text() if (folder / "metrics").exists() else ""
    # A write across a page may be seen, or cut by the kill, in its middle: only lines before the last are promised.
    return [json.loads(line)["update"] for line in text[: text.rfind("\\n") + 1].splitlines()]

assert os.waitpid(train("whole"), 0)[1] == 0
(folder / "metrics").unlink()
chance = random.Random(0)
killed = 0
for k in range(5):
    child, target = train("killed"), chance.randint(20 * k + 1, 20 * k + 18)
    while not (done := lines()) or done[-1] < target:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the training ended too soon"
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    killed += os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    reached, kept = lines(), read_tensors(folder / "killed")[1]["update"]
    assert reached == list(range(1, len(reached) + 1)), reached
    assert 0 <= reached[-1] - kept <= EVERY, (reached[-1], kept)
assert os.waitpid(train("killed"), 0)[1] == 0
assert lines() == list(range(1, UPDATES + 1))
assert (folder / "metrics").read_text().endswith("\\n"), "the resumed run left a cut line"
print(killed, (folder / "whole").read_bytes() == (folder / "killed").read_bytes())
"""


def test_a_training_killed_at_five_random_times_loses_an_interval_at_most_and_ends_bit_for_bit_alike(tmp_path):
    root = str(Path(__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", KILLS, str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["5", "True"]
    leftovers = [p.name for p in tmp_path.iterdir() if p.name not in ("whole", "killed", "metrics")]
    assert all(name.startswith(".ctrnn-") and name.endswith(".tmp") for name in leftovers)

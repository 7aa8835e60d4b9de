"""Every branch of the family tree is an identity between two networks, and every network has one."""

import copy

import pytest
import torch

from ctrnn import RK4, Fixed, integrate
from ctrnn import _tree as tree
from ctrnn.models import CTRNN
from ctrnn.models.kinship import ALWAYS, CONTINUOUS, DISCRETE, KIN, STEPS

STEP_SIZES = {ALWAYS: (1.0, 0.5, 0.1, None), STEPS: (1.0, 0.5, 0.1), DISCRETE: (1.0,), CONTINUOUS: (None,)}
every_kin = pytest.mark.parametrize("kin", KIN, ids=lambda kin: f"{kin.child.__name__}-{kin.parent.__name__}")


@torch.no_grad()
def difference(pair, dt):
    """Between the two runs, over the size of the states; dt None is the flow."""
    pair.child.tau = pair.tau(dt)
    how = {"solver": RK4(), "steps": Fixed(0.1)} if dt is None else {"steps": Fixed(dt)}
    child = integrate(pair.child, pair.us, pair.x0, dt=1.0, **how)
    parent = integrate(pair.parent, pair.parent_us, pair.seen(pair.x0), dt=1.0, **how)
    pairs = zip(tree.leaves(pair.seen(child.xs)), tree.leaves(parent.xs), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@every_kin
@pytest.mark.parametrize("seed", [0, 1])
def test_where_the_condition_holds_the_child_is_its_parent(kin, seed):
    for dt in STEP_SIZES[kin.when]:
        assert difference(kin.pair(seed), dt) < kin.tolerance


@every_kin
def test_other_weights_of_the_child_make_another_network(kin):
    pair = kin.pair(0)
    child = copy.deepcopy(pair.child)  # some pairs share weights
    with torch.no_grad():
        for parameter in child.parameters():
            parameter *= 1.1
    assert difference(pair._replace(child=child), STEP_SIZES[kin.when][0]) > 1e-3


def test_the_kinships_are_one_tree():
    parent = {kin.child: kin.parent for kin in KIN}
    assert len(parent) == len(KIN), "a network has one parent in the tree"
    for kind in parent:
        seen = [kind]
        while seen[-1] in parent:
            seen.append(parent[seen[-1]])
            assert len(seen) <= len(KIN) + 1, "a circle"
        assert seen[-1] is CTRNN


def test_drawing_a_pair_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for kin in KIN:
        kin.pair(0)
    assert torch.equal(before, torch.get_rng_state())

"""A drive projected in compiled code: F.linear to rounding, and each row the same in any company."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from ctrnn.native.library import library
from ctrnn.native.project import project

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled")


def draw(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (3, 0), (7, 97), (2, 3, 50)], ids=str)
@pytest.mark.parametrize(("k", "n"), [(0, 3), (1, 1), (3, 65), (300, 7)])
def test_it_is_torchs_linear_map_and_so_are_its_gradients(generator, k, n, shape, bias, dtype):
    u, W = draw(generator, *shape, k, dtype=dtype), draw(generator, n, k, dtype=dtype)
    given = [u, W, draw(generator, n, dtype=dtype)] if bias else [u, W]
    found = []
    for linear in (project, F.linear):
        leaves = [value.clone().requires_grad_() for value in given]
        v = linear(*leaves, *([] if bias else [None]))
        found.append([v.detach(), *torch.autograd.grad(v.tanh().sum(), leaves)])
    scale = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(*found, rtol=scale, atol=scale)


def test_a_row_has_the_same_bits_in_any_company(generator):
    u, W, b = draw(generator, 200, 37), draw(generator, 65, 37), draw(generator, 65)
    whole = project(u, W, b)
    for rows in (slice(0, 1), slice(3, 10), slice(60, 200), slice(199, 200)):
        assert torch.equal(project(u[rows], W, b), whole[rows])
    torch.set_num_threads(2)
    assert torch.equal(project(u.repeat(50, 1), W, b)[-200:], whole)
    torch.set_num_threads(1)


def test_transforms_and_second_derivatives_see_through_it(generator):
    u, W, b = draw(generator, 4, 5, 3), draw(generator, 2, 7, 3), draw(generator, 2, 7)

    def energy(linear):
        return lambda u, W, b: linear(u, W, b).sin().sum()

    for dims in ((0, None, None), (None, 0, 0), (1, None, None)):
        given = [u if dims[0] is not None else u[0], *((W, b) if dims[1] == 0 else (W[0], b[0]))]
        mine, plain = (vmap(grad(energy(f), argnums=(0, 1, 2)), in_dims=dims)(*given) for f in (project, F.linear))
        torch.testing.assert_close(mine, plain, rtol=1e-12, atol=1e-12)
    leaves = [value.requires_grad_() for value in (u[0].clone(), W[0].clone(), b[0].clone())]
    assert torch.autograd.gradgradcheck(lambda *x: project(*x).sin(), leaves)


def test_the_inputs_may_lie_anywhere_in_memory(generator):
    u, W, b = draw(generator, 3, 9).T, draw(generator, 3, 5).T, draw(generator, 10)[::2]
    torch.testing.assert_close(project(u, W, b), F.linear(u, W, b), rtol=1e-12, atol=1e-12)


def test_a_drive_of_another_dtype_is_refused_as_torch_does(generator):
    with pytest.raises(RuntimeError, match="dtype"):
        project(draw(generator, 4, 3, dtype=torch.float32), draw(generator, 2, 3), None)

"""Systems from textbooks as vector fields; their constants are float64 buffers, and so is the state they start from.

A constant becomes trainable by assigning a Parameter: `system.rho = nn.Parameter(system.rho)`.
"""

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ctrnn.dynamics import Model, Relaxation

Vector = Float[Tensor, "*batch unit"]


class Textbook(Model):
    """A system of few equations with named constants and a customary start; it has no input."""

    n_in = 0
    start: ClassVar[tuple[float, ...]]

    def __init__(self, **constants: float) -> None:
        super().__init__()
        self._names = tuple(constants)
        for name, value in constants.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64).clone())

    def initial_state(self, *batch: int) -> Vector:
        """The customary start of the literature, or one on the way to the attractor."""
        like = getattr(self, self._names[0])
        return like.new_tensor(self.start).expand(*batch, -1).clone()

    def constants(self, x: Vector) -> list[Tensor]:
        """The constants in the order of the constructor, in the state's dtype."""
        return [getattr(self, name).to(x.dtype) for name in self._names]

    @property
    def config(self) -> dict[str, Any]:
        return {name: getattr(self, name).item() for name in self._names}

    @classmethod
    def example(cls) -> Self:
        return cls()

    def extra_repr(self) -> str:
        """The constants."""
        return ", ".join(f"{name}={getattr(self, name).item():g}" for name in self._names)


class LinearSystem(Model):
    """dx/dt = A x + B u.

    Args:
        A: (n, n), [to, from].
        B: (n, n_in); without it the system has no input.

    State: (*batch, n); it starts at 1 in every coordinate.
    """

    A: Tensor
    B: Tensor

    def __init__(self, A: Float[Tensor, "unit unit"], B: Float[Tensor, "unit input"] | None = None) -> None:
        super().__init__()
        B = A.new_zeros(A.shape[0], 0) if B is None else B
        if A.ndim != 2 or A.shape[0] != A.shape[1] or B.ndim != 2 or B.shape[0] != A.shape[0]:
            raise ValueError(f"A must be (n, n) and B (n, n_in), got {tuple(A.shape)} and {tuple(B.shape)}.")
        self.register_buffer("A", A.detach().clone())
        self.register_buffer("B", B.detach().to(A).clone())
        self.n_in = B.shape[1]

    def forward(self, t: Tensor, x: Vector, u: Float[Tensor, "*batch input"]) -> Vector:  # type: ignore[override]
        return F.linear(x, self.A) + F.linear(u, self.B)

    def exact(
        self, t: Float[Tensor, "*time"], x0: Vector, u: Float[Tensor, "*batch input"] | None = None
    ) -> Float[Tensor, "*time_and_batch unit"]:
        """x(t) from x(0) = x0 while u is held (0 if None): exp(t [[A, B u], [0, 0]]) [x0, 1], one row per time."""
        n = len(self.A)
        held = x0.new_zeros(x0.shape) if u is None else F.linear(u, self.B).expand_as(x0)
        t = t.to(x0)[(...,) + (None,) * (x0.ndim + 1)]
        top = torch.cat([self.A.expand(*x0.shape, n), held[..., None]], -1)
        flow = torch.linalg.matrix_exp(t * F.pad(top, (0, 0, 0, 1)))
        return (flow @ F.pad(x0, (0, 1), value=1.0)[..., None])[..., :n, 0]

    def initial_state(self, *batch: int) -> Vector:
        return self.A.new_ones(*batch, len(self.A))

    @property
    def config(self) -> dict[str, Any]:
        return {"A": self.A.tolist(), "B": self.B.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        A = torch.tensor(config["A"], dtype=torch.float64)
        return cls(A, torch.tensor(config["B"], dtype=torch.float64).reshape(len(A), -1))

    @classmethod
    def example(cls) -> Self:
        return cls(
            torch.tensor([[-0.1, 1.0], [-1.0, -0.1]], dtype=torch.float64),
            torch.tensor([[0.0], [1.0]], dtype=torch.float64),
        )


class Lorenz(Textbook):
    """dx/dt = sigma (y - x),   dy/dt = x (rho - z) - y,   dz/dt = x y - beta z.

    Lorenz (1963), J. Atmos. Sci. 20:130-141: chaotic at sigma = 10, rho = 28, beta = 8/3. State (*batch, 3): x, y, z.
    """

    start = (1.0, 1.0, 1.0)

    def __init__(self, sigma: float = 10.0, rho: float = 28.0, beta: float = 8 / 3) -> None:
        super().__init__(sigma=sigma, rho=rho, beta=beta)

    def forward(self, t: Tensor, x: Vector, u: Tensor) -> Vector:  # type: ignore[override]
        sigma, rho, beta = self.constants(x)
        x, y, z = x.unbind(-1)
        return torch.stack((sigma * (y - x), x * (rho - z) - y, x * y - beta * z), -1)


class Rossler(Textbook):
    """dx/dt = -y - z,   dy/dt = x + a y,   dz/dt = b + z (x - c).

    Rossler (1976), Phys. Lett. A 57:397-398; chaotic at a = b = 0.2, c = 5.7. State (*batch, 3): x, y, z.
    """

    start = (1.0, 1.0, 0.0)

    def __init__(self, a: float = 0.2, b: float = 0.2, c: float = 5.7) -> None:
        super().__init__(a=a, b=b, c=c)

    def forward(self, t: Tensor, x: Vector, u: Tensor) -> Vector:  # type: ignore[override]
        a, b, c = self.constants(x)
        x, y, z = x.unbind(-1)
        return torch.stack((-y - z, x + a * y, b + z * (x - c)), -1)


class VanDerPol(Textbook):
    """dx/dt = y,   dy/dt = mu (1 - x^2) y - x.

    van der Pol (1926), Phil. Mag. 2:978-992: a limit cycle for mu > 0, stiff for large mu. State (*batch, 2): x, y.
    """

    start = (2.0, 0.0)

    def __init__(self, mu: float = 1.0) -> None:
        super().__init__(mu=mu)

    def forward(self, t: Tensor, x: Vector, u: Tensor) -> Vector:  # type: ignore[override]
        (mu,) = self.constants(x)
        x, y = x.unbind(-1)
        return torch.stack((y, mu * (1 - x**2) * y - x), -1)


class FitzHughNagumo(Textbook):
    """dv/dt = v - v^3 / 3 - w + I,   dw/dt = eps (v + a - b w).

    FitzHugh (1961), Biophys. J. 1:445-466, and Nagumo, Arimoto & Yoshizawa (1962): excitable at I = 0, oscillating
    between two Hopf points in I, at which v^2 = 1 - eps b. State (*batch, 2): v, w.
    """

    start = (-1.0, 1.0)

    def __init__(self, I: float = 0.0, a: float = 0.7, b: float = 0.8, eps: float = 0.08) -> None:
        super().__init__(I=I, a=a, b=b, eps=eps)

    def forward(self, t: Tensor, x: Vector, u: Tensor) -> Vector:  # type: ignore[override]
        I, a, b, eps = self.constants(x)
        v, w = x.unbind(-1)
        return torch.stack((v - v**3 / 3 - w + I, eps * (v + a - b * w)), -1)


class Robertson(Textbook):
    """da/dt = -k1 a + k3 b c,   db/dt = k1 a - k3 b c - k2 b^2,   dc/dt = k2 b^2.

    Robertson (1966): three reactions whose rates lie nine decades apart, the standard stiff problem; a + b + c is
    conserved. State (*batch, 3): a, b, c.
    """

    start = (1.0, 0.0, 0.0)

    def __init__(self, k1: float = 0.04, k2: float = 3e7, k3: float = 1e4) -> None:
        super().__init__(k1=k1, k2=k2, k3=k3)

    def forward(self, t: Tensor, x: Vector, u: Tensor) -> Vector:  # type: ignore[override]
        k1, k2, k3 = self.constants(x)
        a, b, c = x.unbind(-1)
        back, slow, fast = k3 * b * c, k1 * a, k2 * b**2
        return torch.stack((back - slow, slow - back - fast, fast), -1)


class Henon(Textbook, Relaxation):
    """(x, y) -> (1 - a x^2 + y, b x): a map, as the target of a relaxation with tau = 1, so that `Iterate` iterates it.

    Henon (1976), Commun. Math. Phys. 50:69-77; chaotic at a = 1.4, b = 0.3, and every step shrinks areas by b.
    State (*batch, 2): x, y.
    """

    start = (0.0, 0.0)

    def __init__(self, a: float = 1.4, b: float = 0.3) -> None:
        super().__init__(a=a, b=b)
        self.tau = 1.0

    def target(self, t: Tensor, x: Vector, u: Tensor, alpha: Any = 0) -> Vector:  # type: ignore[override]
        a, b = self.constants(x)
        x, y = x.unbind(-1)
        return torch.stack((1 - a * x**2 + y, b * x), -1)

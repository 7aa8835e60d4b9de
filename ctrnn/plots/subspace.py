"""How many directions, and how long activity remembers itself."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from ctrnn.analysis import Timescales
from ctrnn.plots._array import array
from ctrnn.plots.style import CYCLE, QUIET


def variance_explained(
    ax: Axes, variance: Float[Any, " D"], *, label: str | None = None, color: str | None = None
) -> Axes:
    """The fraction of the variance in the first k principal axes, against k; `variance` is `Subspace.variance`.

    Raises:
        ValueError: there is no variance.
    """
    values = array(variance, float)
    if not values.sum() > 0:
        raise ValueError(f"the variances {values.tolist()} add to none: nothing moves along these axes.")
    share = np.cumsum(values) / values.sum()
    ax.plot(np.arange(1, len(share) + 1), share, "o-", ms=3, label=label, color=color)
    ax.set(xlabel="principal axes", ylabel="variance explained", ylim=(0, 1.03))
    return ax


def autocorrelations(ax: Axes, found: Timescales, groups: dict[str, Any] | None = None) -> Axes:
    """Autocorrelation of each unit, thin, and of each group, thick, with the time at which it falls to 1/e.

    `groups` are those that `timescales` was called with.
    """
    lags, values = array(found.lags), array(found.autocorrelation)
    for k, (name, members) in enumerate((groups or {"all units": slice(None)}).items()):
        color = CYCLE[k % len(CYCLE)]
        ax.plot(lags, values[:, members], color=color, lw=0.4, alpha=0.3)
        time = f", {found.groups[name]:.3g}" if name in found.groups else ""
        ax.plot(lags, np.nanmean(values[:, members], 1), color=color, lw=1.6, label=f"{name}{time}")
    ax.axhline(np.exp(-1), color=QUIET, ls=":", lw=0.8)
    ax.set(xlabel="lag", ylabel="autocorrelation")
    return ax

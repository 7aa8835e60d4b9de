"""One look for every figure: colours by meaning, sizes for one and two columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.rcsetup import cycler

SINGLE, DOUBLE = 3.5, 7.2  # inches: width of one and of two columns

# Colours by meaning (Okabe & Ito 2008, distinguishable with any colour vision).
TRAJECTORY, STABLE, UNSTABLE, INPUT, OUTPUT, TARGET, QUIET = (
    "#0072B2",
    "#000000",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#999999",
)
CYCLE = (TRAJECTORY, UNSTABLE, INPUT, OUTPUT, TARGET, "#56B4E9", STABLE)

_RC: Any = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=CYCLE),
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Figures made inside have the package's look; matplotlib's settings are restored after."""
    with mpl.rc_context(_RC):
        yield

"""Where to keep states when only so many can be kept: the offline-optimal schedule.

Griewank & Walther (2000), ACM Transactions on Mathematical Software 26:19-45 (Algorithm 799).
"""

from functools import cache
from math import comb, inf


def advances(n: int, slots: int) -> float:
    """Segments run forward in all to reverse n of them, holding `slots` states, that at the start among them.

    r n - C(slots + r, r - 1) for the smallest r with C(slots + r, slots) >= n.
    """
    if n == 1:
        return 0
    if slots < 1:
        return inf
    r = 1
    while comb(slots + r, slots) < n:
        r += 1
    return r * n - comb(slots + r, r - 1)


@cache
def split(n: int, slots: int) -> int:
    """After how many of n > 1 segments to keep the next state: what follows is reversed with one slot less."""
    return min(range(1, n), key=lambda k: k + advances(k, slots) + advances(n - k, slots - 1))


def spine(n: int, slots: int) -> list[tuple[int, int]]:
    """The states to keep on the first way through n segments: the segment that starts there, and slots up to the next.

    The last segment's start is among them, at which the reversal begins.
    """
    kept = [(0, slots)]
    while n - kept[-1][0] > 1:
        at, left = kept[-1]
        kept.append((at + split(n - at, left), left - 1))
    return kept

"""How a batch of any size is dealt out to networks of fixed batch sizes that run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A call may be filled up with empty pictures to this share; beyond, two smaller calls cost less.
_EMPTY = 1 / 4


@dataclass(frozen=True, slots=True)
class Portion:
    """Pictures of one call: `rows` from `start` on, in a call for `batch` pictures."""

    start: int
    rows: int
    batch: int


def portions(n: int, lanes: int, sizes: Sequence[int]) -> tuple[Portion, ...]:
    """Deal `n` pictures out to `lanes` workers of like speed.

    Parameters
    ----------
    n : int
        0 or more.
    lanes : int
        1 or more.
    sizes : sequence of int
        Batch sizes a call can have, in any order.

    Returns
    -------
    tuple of Portion
        Each picture once. The dearest first: who takes the next one when it is done with the last is then never long
        behind the others.

    Examples
    --------
    >>> [(p.rows, p.batch) for p in portions(75, 2, (1, 4, 16))]
    [(16, 16), (16, 16), (16, 16), (16, 16), (4, 4), (4, 4), (1, 1), (1, 1), (1, 1)]
    """
    ordered = sorted(sizes)
    calls = sorted((call for k in range(lanes) for call in _calls((n + k) // lanes, ordered)), key=lambda c: -c[1])
    found, start = [], 0
    for rows, batch in calls:
        found.append(Portion(start, rows, batch))
        start += rows
    return tuple(found)


def _calls(n: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and batch of the calls for `n` pictures on one worker; `sizes` from the smallest to the largest."""
    calls: list[tuple[int, int]] = []
    while n:
        above = next((s for s in sizes if s >= n), None)
        below = max((s for s in sizes if s <= n), default=None)
        if above is not None and (below is None or above - n <= _EMPTY * above):
            return [*calls, (n, above)]
        assert below is not None
        calls.append((below, below))
        n -= below
    return calls

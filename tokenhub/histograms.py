"""Quantiles out of histograms: numbers of things by classes, whose upper edges are known.

Pure arithmetic. A quantile is somewhere in its class: it is taken to lie as far into it as its rank
does among the class's things, so it is wrong by the width of the class at most. The classes' edges
are at most three times each other (in a 1-2-5 series 2.5 times), so is the error relative to the
true value; the largest thing, where it is known, bounds it from above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def quantile(
    edges: Sequence[int], counts: Sequence[int], share: float, largest: int | None = None
) -> float | None:
    """The value that `share` of the things do not exceed, by linear interpolation in its class.

    Args:
        edges: upper edges of all classes but the last, ascending; what is equal to an edge is in
            its class. The first class begins at 0.
        counts: how many things are in each class, one more than there are edges.
        share: 0 to 1.
        largest: of all things, in the unit of the edges; None = not known, and then what is
            beyond the last edge is taken to be at it.

    Returns: in the unit of the edges; None = there is nothing.
    """
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    before = at = 0
    while not counts[at] or before + counts[at] < rank:
        before += counts[at]
        at += 1
    low = edges[at - 1] if at else 0
    high = edges[at] if at < len(edges) else low
    if largest is not None:
        high = largest if at == len(edges) else min(high, largest)
    found = low + max(0, high - low) * max(0.0, rank - before) / counts[at]
    return found if largest is None else min(found, float(largest))


def merge(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The histogram of what several ones of the same edges have counted."""
    return [sum(each) for each in zip(*histograms, strict=True)]

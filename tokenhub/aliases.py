"""Which model a name that callers use stands for this time. Pure: no clock, no catalog.

The arithmetic is the original's (reference §8), so that a caller keeps its variant when a gateway
is replaced by this one; but turns are spread evenly instead of in blocks.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from tokenhub.domain import Alias, Variant
from tokenhub.errors import InvalidRequest

WILDCARD = "*"
"""The alias of this name stands for the models that a request for `*` is spread over."""

STICKY_BY = ("request", "api_key", "round_robin")
VARIANTS_MAX = 50
WEIGHT_MAX = 1_000_000
"""Small enough that the turns of `variant_at` are told apart in floating point."""

_FNV_OFFSET, _FNV_PRIME, _FNV_MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF


def fnv1a(text: str) -> int:
    """FNV-1a, 32 bits, of a text's UTF-8 (http://www.isthe.com/chongo/tech/comp/fnv/)."""
    found = _FNV_OFFSET
    for byte in text.encode(errors="surrogatepass"):
        found = (found ^ byte) * _FNV_PRIME & _FNV_MASK
    return found


def check(alias: Alias) -> None:
    """Make sure that an alias can be resolved. Its models need not exist.

    Raises:
        InvalidRequest: naming what is wrong (reference §8.2).
    """
    if not alias.name:
        raise _wrong("name", "must not be empty")
    if alias.sticky_by not in STICKY_BY:
        raise _wrong("sticky_by", "must be one of: " + ", ".join(STICKY_BY))
    check_variants(alias.variants)
    if any(model_id == alias.name for model_id, _ in alias.variants):
        raise _wrong("variants", "may not lead back to the alias itself")


def check_variants(variants: Sequence[Variant]) -> None:
    """What `check` says of them alone.

    Raises:
        InvalidRequest: naming what is wrong.
    """
    if not 0 < len(variants) <= VARIANTS_MAX:
        raise _wrong("variants", f"must have 1 to {VARIANTS_MAX} of them")
    if not all(model_id for model_id, _ in variants):
        raise _wrong("variants", "must each have a model_id")
    if len({model_id for model_id, _ in variants}) < len(variants):
        raise _wrong("variants", "may not have the same model twice")
    if not all(0 < weight <= WEIGHT_MAX for _, weight in variants):
        raise _wrong("variants", f"must have weights from 1 to {WEIGHT_MAX}")


def choose(alias: Alias, usable: Collection[str], *, key: str, rng: random.Random) -> Variant:
    """The variant for a request that brings a key of its own, or none: then a random one.

    Only those whose variant cannot be used change to another: in their shares, too.

    Args:
        usable: ids of models; at least one variant's must be among them.
        key: the same key means the same variant for as long as the weights stay as they are.
        rng: used without a key only.
    """
    if not key:
        fit = usable_of(alias, usable)
        return _at(fit, rng.randrange(_total(fit)))
    left, point = list(alias.variants), fnv1a(key)
    while (found := _at(left, point % _total(left))).model_id not in usable:
        left.remove(found)
    return found


def variant_at(variants: Sequence[Variant], turn: int) -> Variant:
    """Whose turn it is: in as many turns as the weights add up to, each has its weight in turns,
    spread evenly.

    Fair queueing: the k-th turn of a variant is due at k ÷ weight of the round, and of two that are
    due at once the one declared first comes first. So weights 2 and 1 give a, a, b as in the
    original, but 50 and 50 a, b, a, b where the original gives 50 times a first.

    Args:
        turn: 0, 1, 2, …
    """
    total = _total(variants)
    turn %= total
    # All that is due by `turn ÷ total` is at most `turn` turns; from there it is a few steps.
    had = [turn * weight // total for _, weight in variants]
    found = 0
    for _ in range(turn - sum(had) + 1):
        due = [(count + 1) / weight for count, (_, weight) in zip(had, variants, strict=True)]
        found = due.index(min(due))
        had[found] += 1
    return variants[found]


def usable_of(alias: Alias, usable: Collection[str]) -> list[Variant]:
    """The variants whose models can be used, as declared."""
    return [variant for variant in alias.variants if variant.model_id in usable]


def others_of(variants: Sequence[Variant], chosen: str) -> list[str]:
    """Who stands in for the chosen one: the heaviest first, equal ones as declared."""
    others = [variant for variant in variants if variant.model_id != chosen]
    return [model_id for model_id, _ in sorted(others, key=lambda variant: -variant.weight)]


def _at(variants: Sequence[Variant], point: int) -> Variant:
    """The variant whose stretch of the weights, laid end to end, a point falls into."""
    for variant in variants:
        if point < variant.weight:
            return variant
        point -= variant.weight
    raise IndexError("the point is beyond the weights")


def _total(variants: Sequence[Variant]) -> int:
    return sum(weight for _, weight in variants)


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {message}", param=field)

"""Judges providers and models: who fails, who rests, who does not even answer probes.

Several hosts may see the same differently, so each says which it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenhub.events.shapes import moment
from tokenhub.providers.errors import ERROR_CLASSES
from tokenhub.store.standing import Standing
from tokenhub.views.facts import RECENT_MS, Facts
from tokenhub.views.items import Item, Link, act, see

FAILED_MIN, FAILED_SHARE = 5, 0.1
"""From how many failures, which are what share of the attempts, somebody is told of."""
CRITICAL_SHARE = 0.5


class Tried(NamedTuple):
    """What became of attempts; those that failed by the caller's own fault are no failures."""

    attempts: int
    failed: Mapping[str, int]

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    @property
    def share(self) -> float:
        return self.failures / self.attempts if self.attempts else 0.0

    @property
    def is_failing(self) -> bool:
        return self.failures >= FAILED_MIN and self.share >= FAILED_SHARE


def find_trouble(facts: Facts) -> Iterator[Item]:
    """Providers that fail or rest; and models, where others of the same provider do well."""
    models_of: dict[str, list[str]] = {}
    for model in facts.snapshot.models.values():
        models_of.setdefault(model.provider_id, []).append(model.id)
    for provider_id in sorted(facts.snapshot.providers):
        yield from _of_provider(facts, provider_id, sorted(models_of.get(provider_id, ())))


def _of_provider(facts: Facts, provider_id: str, models: Sequence[str]) -> Iterator[Item]:
    tried = {
        model_id: _tried([words])
        for model_id in models
        if (words := facts.attempts.get((model_id, provider_id)))
    }
    own = _ill(facts, "provider", provider_id)
    ill = {model_id: found for model_id in models if (found := _ill(facts, "model", model_id))}
    down = {model_id for model_id, found in ill.items() if any(_is_down(each) for each in found)}
    bad = sorted({id_ for id_, each in tried.items() if each.is_failing} | down)
    if any(map(_is_down, own)) or (bad and set(tried) | down == set(bad)):
        total = _add(tried.values())
        yield _failing(facts, ("provider", provider_id), provider_id, total, own or _all(ill, bad))
        return
    for model_id in bad:
        its = tried.get(model_id, Tried(0, {}))
        yield _failing(facts, ("model", model_id), provider_id, its, ill.get(model_id, []))
    if own and any(each.state == "silent" for each in own):
        yield Item(
            "provider_silent", "warning", "provider", provider_id, provider_id, _since(own),
            {"hosts": [_shown(facts, each) for each in own]}, _links(provider_id),
        )  # fmt: skip


def _failing(
    facts: Facts,
    subject: tuple[str, str],
    provider_id: str,
    tried: Tried,
    ill: Sequence[Standing],
) -> Item:
    kind, id_ = subject
    down = [each for each in ill if _is_down(each)]
    is_critical = bool(down) or tried.share >= CRITICAL_SHARE
    return Item(
        "provider_failing" if kind == "provider" else "model_failing",
        "critical" if is_critical else "warning",
        kind,
        id_,
        id_,
        _since(ill),
        {
            "provider_id": provider_id,
            "attempts": tried.attempts,
            "failed_attempts": tried.failures,
            "window_secs": RECENT_MS // 1000,
            "error_classes": dict(sorted(tried.failed.items(), key=lambda each: -each[1])),
            "lost_requests": facts.lost.get(provider_id, 0),
            "rests": bool(down),
            "until": _time(max((each.until_at for each in down), default=0)),
            "hosts": [_shown(facts, each) for each in ill],
        },
        _links(provider_id, id_ if kind == "model" else ""),
    )


def _links(provider_id: str, model_id: str = "") -> dict[str, Link]:
    word = {"model": model_id} if model_id else {"provider": provider_id}
    return {
        "requests": see("logs", **word, outcome="rescued,failed,cut"),
        "transitions": see("health", "transitions", **word),
        "clear": act("POST", "health", model_id or provider_id, "clear"),
    }


def _tried(rows: Iterable[Mapping[str, int]]) -> Tried:
    attempts, failed = 0, dict[str, int]()
    for words in rows:
        for word, count in words.items():
            attempts += count
            if word and _counts(word):
                failed[word] = failed.get(word, 0) + count
    return Tried(attempts, failed)


def _add(several: Iterable[Tried]) -> Tried:
    attempts, failed = 0, dict[str, int]()
    for each in several:
        attempts += each.attempts
        for word, count in each.failed.items():
            failed[word] = failed.get(word, 0) + count
    return Tried(attempts, failed)


def _counts(word: str) -> bool:
    known = ERROR_CLASSES.get(word)
    return known is None or known.counts


def _ill(facts: Facts, kind: str, id_: str) -> list[Standing]:
    return [each for each in facts.ill if (each.kind, each.id) == (kind, id_)]


def _all(ill: Mapping[str, Sequence[Standing]], ids: Iterable[str]) -> list[Standing]:
    return [each for id_ in ids for each in ill.get(id_, ())]


def _is_down(standing: Standing) -> bool:
    return standing.state == "down"


def _since(ill: Iterable[Standing]) -> int | None:
    return min((each.since_at for each in ill), default=None)


def _shown(facts: Facts, standing: Standing) -> dict[str, Any]:
    return {
        "host_id": standing.host_id,
        "host": facts.host_name(standing.host_id),
        f"{standing.kind}_id": standing.id,
        "state": standing.state,
        "breaker": standing.breaker,
        "reason": standing.reason,
        "since": _time(standing.since_at),
        "until": _time(standing.until_at),
    }


def _time(at: int) -> str | None:
    return moment(at) if at else None

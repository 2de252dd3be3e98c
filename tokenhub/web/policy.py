"""What applies to a request: what it says itself, then its key, then our defaults.

A request says it in headers (`X-TokenHub-…`), in an object of its body (`tokenhub`; `policy` in the
native envelope), or, where its key may, in a directive. Headers come before the body. A directive
stands in text that others may have written, so it only tightens what headers and body limit; as to
the mode, it comes after the headers and before the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from tokenhub.catalog import Snapshot
from tokenhub.directives import (
    BUDGET_USD_MAX,
    LATENCY_MS_MAX,
    MODE_WORDS,
    NOTHING,
    WEIGHT_MAX,
    Directive,
    number_of,
)
from tokenhub.domain import ApiKey, Policy
from tokenhub.errors import InvalidRequest
from tokenhub.pricing import nanos_from_usd
from tokenhub.web import forms

FIELD = "tokenhub"
"""The object in bodies whose dialect has none of its own for this."""
NAMES_MAX = 50

_mode = forms.one_of(*MODE_WORDS, "")
WORDS: dict[str, forms.Reader] = {
    "mode": lambda name, value: MODE_WORDS.get(_mode(name, value)),
    "max_budget_usd": forms.number(0, BUDGET_USD_MAX),
    "max_latency_ms": forms.integer(0, LATENCY_MS_MAX),
    "min_weight": forms.integer(0, WEIGHT_MAX),
    "tags": forms.word_list(NAMES_MAX),
    "fallbacks": forms.word_list(NAMES_MAX),
    "exclude": forms.word_list(NAMES_MAX),
}

_HEADERS = {
    word: "X-TokenHub-" + word.replace("_", "-").title().replace("Usd", "USD") for word in WORDS
}
VARIABLES = {"HTTP_" + name.upper().replace("-", "_"): word for word, name in _HEADERS.items()}
_NUMBERS = ("max_budget_usd", "max_latency_ms", "min_weight")
_LISTS = ("tags", "fallbacks", "exclude")

OF_KEY, OF_HEADER, OF_BODY, OF_DIRECTIVE = "key", "header", "body", "directive"
"""Where a value of a policy comes from."""
NOWHERE: Mapping[str, str] = MappingProxyType({})

Values = dict[str, Any]


class Given(NamedTuple):
    """What a request's body and text say.

    Args:
        value: the policy object as it stands in the body; None = there is none.
        field: its name, for those who have to mend it.
    """

    value: Any = None
    field: str = FIELD
    directive: Directive = NOTHING


class Said(NamedTuple):
    """What a request says, checked; what it does not say is missing."""

    in_body: Values
    in_headers: Values
    directive: Directive = NOTHING


Ruling = tuple[Policy, Mapping[str, str]]
"""What applies, and where each value of it that is not the default comes from: key, header, body
or directive."""


def request_policy(
    snapshot: Snapshot, key: ApiKey, environ: Mapping[str, Any], given: Given
) -> Ruling:
    """What applies to a request.

    A budget or a latency that it gives is hard. Those of its key it can lower, and never raise; the
    key's least weight it can raise, and never lower.

    Raises:
        InvalidRequest: naming the header or the field that is wrong.
    """
    policy = default_policy(snapshot, key)
    # A view of the environment's keys: it looks for our seven names, and not through all of them.
    says_nothing = environ.keys().isdisjoint(VARIABLES)
    if says_nothing and given.value is None and given.directive is NOTHING:
        return policy, dict.fromkeys(key.policy, OF_KEY) if key.policy else NOWHERE
    in_body = _from_object(given.value, given.field)
    in_headers = {} if says_nothing else _from_headers(environ)
    return rule(snapshot, key, Said(in_body, in_headers, given.directive))


def rule(snapshot: Snapshot, key: ApiKey, said: Said) -> Ruling:
    """What applies to a request that says this; see `request_policy`."""
    policy = default_policy(snapshot, key)
    in_body, in_headers, directive = said
    mode = in_headers.get("mode") or directive.mode or in_body.get("mode")
    values = {**in_body, **in_headers}
    policy = replace(
        policy,
        mode=mode or policy.mode,
        min_weight=max(policy.min_weight, values.get("min_weight", 0), directive.min_weight),
        tags=frozenset(values.get("tags", ())),
        fallbacks=values.get("fallbacks"),
        exclude=frozenset(values.get("exclude", ())),
    )
    policy = _limited(policy, key.policy, values, directive)
    return policy, {**_words_from(key, said), **_numbers_from(key, said)}


def default_policy(snapshot: Snapshot, key: ApiKey) -> Policy:
    """What applies when the request says nothing, first the key's, then ours: it only ranks."""
    defaults = snapshot.defaults
    policy = Policy(
        mode=defaults.mode,
        max_budget_nanousd=defaults.max_budget_nanousd,
        max_latency_ms=defaults.max_latency_ms,
    )
    if not key.policy:
        return policy
    own = dict(key.policy)
    if "max_budget_usd" in own:
        own["max_budget_nanousd"] = nanos_from_usd(own.pop("max_budget_usd"))
    return replace(policy, **own)


def _words_from(key: ApiKey, said: Said) -> dict[str, str]:
    """Where the mode and the lists come from."""
    in_body, in_headers, directive = said
    found = {word: OF_BODY for word in _LISTS if _is_said(in_body, word)}
    found |= {word: OF_HEADER for word in _LISTS if _is_said(in_headers, word)}
    for is_said, source in (
        (in_headers.get("mode"), OF_HEADER),
        (directive.mode, OF_DIRECTIVE),
        (in_body.get("mode"), OF_BODY),
        (key.policy.get("mode"), OF_KEY),
    ):
        if is_said:
            return {"mode": source, **found}
    return found


def _is_said(values: Values, word: str) -> bool:
    """An empty list says nothing, but for fallbacks: nobody else may answer."""
    return bool(values.get(word)) or (word == "fallbacks" and values.get(word) is not None)


def _numbers_from(key: ApiKey, said: Said) -> dict[str, str]:
    """Where the limits and the least weight come from: of several the tightest, ties to the key."""
    in_body, in_headers, directive = said
    found = {}
    for word, in_directive in (
        ("max_budget_usd", directive.max_budget_nanousd),
        ("max_latency_ms", directive.max_latency_ms),
        ("min_weight", directive.min_weight),
    ):
        source = OF_HEADER if word in in_headers else OF_BODY
        own: Any = key.policy.get(word, 0)
        given: Any = in_headers.get(word, in_body.get(word, 0))
        if word == "max_budget_usd":
            own, given = _nanos(own), _nanos(given)
        values = {OF_KEY: own, source: given, OF_DIRECTIVE: in_directive}
        values = {name: value for name, value in values.items() if value}
        if not values and word in key.policy:
            found[word] = OF_KEY
        elif values:
            tightest = max if word == "min_weight" else min
            found[word] = tightest(values, key=values.__getitem__)
    return found


def _limited(
    policy: Policy, own: Mapping[str, Any], values: Values, directive: Directive
) -> Policy:
    """The policy with the request's own limits, which hold, within those of its key."""
    budget = _tightest(_nanos(values.get("max_budget_usd", 0)), directive.max_budget_nanousd)
    latency = _tightest(values.get("max_latency_ms", 0), directive.max_latency_ms)
    if budget:
        budget = _tightest(budget, _nanos(own.get("max_budget_usd", 0)))
        policy = replace(policy, max_budget_nanousd=budget, budget_is_hard=True)
    if latency:
        latency = _tightest(latency, own.get("max_latency_ms", 0))
        policy = replace(policy, max_latency_ms=latency, latency_is_hard=True)
    return policy


def _tightest(*limits: int) -> int:
    """The least of what are limits; 0 is none."""
    return min(filter(None, limits), default=0)


def _nanos(dollars: float) -> int:
    return max(1, nanos_from_usd(dollars)) if dollars else 0


def _from_object(value: Any, field: str) -> Values:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be an object", param=field)
    found = {}
    for word, each in value.items():
        name = f"{field}.{word[: forms.SHOWN_CHARS]}"
        if word not in WORDS:
            known = ", ".join(WORDS)
            raise InvalidRequest(
                f"unknown field {name!r}; known are: {known}", code="unknown_field", param=name
            )
        if each is not None:
            found[word] = WORDS[word](name, each)
    return found


def _from_headers(environ: Mapping[str, Any]) -> Values:
    found = {}
    for variable, word in VARIABLES.items():
        if variable not in environ:
            continue
        name, text = _HEADERS[word], environ[variable].strip()
        if word in _NUMBERS:
            if text:
                found[word] = WORDS[word](name, number_of(text))
        elif word == "mode":
            found[word] = WORDS[word](name, text)
        else:  # with nothing in it it is an empty list
            words = [each.strip() for each in text.split(",")] if text else []
            found[word] = WORDS[word](name, words)
    return found

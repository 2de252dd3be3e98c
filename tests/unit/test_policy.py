"""What applies to a request: headers, body, directive, key, defaults, in this order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.catalog import Snapshot
from tokenhub.directives import NOTHING, Directive
from tokenhub.domain import ApiKey, Policy, RoutingDefaults
from tokenhub.errors import InvalidRequest
from tokenhub.web.policy import NOWHERE, Given, default_policy, request_policy

USD = 10**9
SNAPSHOT = Snapshot(
    version=1,
    providers={},
    models={},
    keys={},
    defaults=RoutingDefaults("normal", 7 * USD, 60_000),
)


def key(**policy: object) -> ApiKey:
    return ApiKey("k", "k", "p", b"", "", policy=policy)


def of(
    value: object = None,
    *,
    whose: ApiKey | None = None,
    said: Directive = NOTHING,
    **headers: str,
) -> Policy:
    environ = {f"HTTP_X_TOKENHUB_{name.upper()}": text for name, text in headers.items()}
    policy, _ = request_policy(SNAPSHOT, whose or key(), environ, Given(value, directive=said))
    return policy


def test_without_a_word_the_defaults_rank():
    policy = of()
    assert policy == default_policy(SNAPSHOT, key())
    assert policy == Policy("normal", 7 * USD, max_latency_ms=60_000)
    assert of({}) == policy
    assert of(dict.fromkeys(["mode", "tags", "fallbacks", "max_budget_usd"])) == policy
    assert of(mode="", max_budget_usd="", min_weight=" ", tags="") == policy


@pytest.mark.parametrize("is_header", [True, False])
def test_every_word_can_be_said_in_headers_and_in_the_body(is_header):
    if is_header:
        policy = of(
            mode="cheap", max_budget_usd="0.5", max_latency_ms="900", min_weight="3",
            tags="eu, fast ", fallbacks="b,a", exclude="acme",
        )  # fmt: skip
    else:
        policy = of({
            "mode": "cheap", "max_budget_usd": 0.5, "max_latency_ms": 900, "min_weight": 3,
            "tags": ["eu", "fast"], "fallbacks": ["b", "a"], "exclude": ["acme"],
        })  # fmt: skip
    assert policy == Policy(
        "cheap", USD // 2, True, 900, True, 3,
        frozenset({"eu", "fast"}), ("b", "a"), frozenset({"acme"}),
    )  # fmt: skip


def test_headers_beat_the_body_word_by_word():
    policy = of({"mode": "cheap", "min_weight": 2, "tags": ["eu"]}, mode="normal", tags="us")
    assert (policy.mode, policy.min_weight, policy.tags) == ("normal", 2, frozenset({"us"}))


def test_an_empty_list_of_fallbacks_is_one():
    assert of({"fallbacks": []}).fallbacks == of(fallbacks="").fallbacks == ()


def test_a_budget_or_latency_of_nothing_is_none():
    policy = of({"max_budget_usd": 0, "max_latency_ms": 0})
    assert (policy.max_budget_nanousd, policy.budget_is_hard) == (7 * USD, False)
    assert (policy.max_latency_ms, policy.latency_is_hard) == (60_000, False)
    assert of(max_budget_usd="1e-12").max_budget_nanousd == 1


def test_the_limits_of_a_key_can_only_be_tightened():
    own = key(max_budget_usd=1, max_latency_ms=1000, min_weight=5, mode="cheap")
    wide = of({"max_budget_usd": 50, "max_latency_ms": 9000, "min_weight": 1}, whose=own)
    assert wide == Policy("cheap", USD, True, 1000, True, 5)
    tight = of({"max_budget_usd": 0.5, "max_latency_ms": 10, "min_weight": 6}, whose=own)
    assert tight == Policy("cheap", USD // 2, True, 10, True, 6)


def test_a_directive_tightens_limits_and_says_the_mode_where_no_header_does():
    said = Directive("cheap", USD, 500, 4)
    assert of(said=said) == Policy("cheap", USD, True, 500, True, 4)
    body = {"mode": "thompson", "max_budget_usd": 0.5, "max_latency_ms": 9000, "min_weight": 9}
    assert of(body, said=said) == Policy("cheap", USD // 2, True, 500, True, 9)
    assert of(said=said, mode="thompson").mode == "thompson"


@given(st.floats(0, 100), st.integers(0, 300_000), st.integers(0, 10))
def test_no_directive_loosens_what_a_key_or_a_request_limits(budget, latency, weight):
    said = Directive(None, round(budget * USD), latency, weight)
    own = key(max_budget_usd=2, max_latency_ms=2000, min_weight=2)
    policy = of(
        {"max_budget_usd": 1, "max_latency_ms": 1000, "min_weight": 3}, whose=own, said=said
    )
    assert 0 < policy.max_budget_nanousd <= USD
    assert 0 < policy.max_latency_ms <= 1000
    assert policy.min_weight >= 3
    assert policy.budget_is_hard
    assert policy.latency_is_hard


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "tokenhub"),
        ("cheap", "tokenhub"),
        ({"mode": "dear"}, "tokenhub.mode"),
        ({"mode": []}, "tokenhub.mode"),
        ({"max_budget_usd": 101}, "tokenhub.max_budget_usd"),
        ({"max_budget_usd": "1"}, "tokenhub.max_budget_usd"),
        ({"max_latency_ms": -1}, "tokenhub.max_latency_ms"),
        ({"max_latency_ms": 1.5}, "tokenhub.max_latency_ms"),
        ({"min_weight": 11}, "tokenhub.min_weight"),
        ({"tags": "eu"}, "tokenhub.tags"),
        ({"exclude": [1]}, "tokenhub.exclude"),
        ({"budget": 1}, "tokenhub.budget"),
    ],
)
def test_a_wrong_word_in_the_body_is_named(value, param):
    with pytest.raises(InvalidRequest) as caught:
        of(value)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Mode", "dear"), ("Max-Budget-USD", "nan"), ("Max-Budget-USD", "101"),
        ("Max-Latency-Ms", "1.5"), ("Max-Latency-Ms", "soon"), ("Min-Weight", "-1"),
        ("Tags", "a,,b"), ("Exclude", "x" * 201),
    ],
)  # fmt: skip
def test_a_wrong_header_is_named(name, text):
    with pytest.raises(InvalidRequest) as caught:
        of(**{name.replace("-", "_"): text})
    assert caught.value.param == f"X-TokenHub-{name}"


def sources(
    value: object = None,
    *,
    whose: ApiKey | None = None,
    said: Directive = NOTHING,
    **headers: str,
) -> dict[str, str]:
    environ = {f"HTTP_X_TOKENHUB_{name.upper()}": text for name, text in headers.items()}
    given = Given(value, directive=said)
    return dict(request_policy(SNAPSHOT, whose or key(), environ, given)[1])


def test_what_is_the_default_has_no_source_and_costs_nothing():
    assert request_policy(SNAPSHOT, key(), {}, Given())[1] is NOWHERE
    assert sources({"mode": None, "tags": [], "max_budget_usd": 0}) == {}
    own = key(mode="cheap", max_budget_usd=1)
    assert sources(whose=own) == {"mode": "key", "max_budget_usd": "key"}


def test_each_value_has_the_source_that_it_comes_from():
    own = key(mode="cheap", min_weight=5, max_latency_ms=300, max_budget_usd=1)
    body = {"mode": "normal", "tags": ["a"], "exclude": ["x"], "max_budget_usd": 2}
    said = Directive(mode="planning", max_latency_ms=200, min_weight=5)
    assert sources(body, whose=own, said=said, tags="b", fallbacks="") == {
        "mode": "directive", "tags": "header", "exclude": "body", "fallbacks": "header",
        "max_budget_usd": "key", "max_latency_ms": "directive", "min_weight": "key",
    }  # fmt: skip
    assert sources(body, whose=own, said=said, mode="adversarial")["mode"] == "header"
    assert sources(body, whose=own, min_weight="6")["min_weight"] == "header"

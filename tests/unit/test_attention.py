"""Items are judged from facts alone: each once, in an order that does not depend on theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenhub.catalog import Snapshot
from tokenhub.domain import Model, Price, Provider, RoutingDefaults
from tokenhub.store.snoozes import Snooze
from tokenhub.store.standing import Standing
from tokenhub.views.attention import judge
from tokenhub.views.facts import Facts
from tokenhub.views.items import SEVERITIES

NOW = 1_763_900_000_123
PRICE = Price(1, 1)
MODELS = {
    id_: Model(id_, provider_id, id_, price=PRICE)
    for id_, provider_id in (("a1", "a"), ("a2", "a"), ("b1", "b"))
}
PROVIDERS = {id_: Provider(id_, "openai", "http://127.0.0.1:1") for id_ in ("a", "b")}
SNAPSHOT = Snapshot(1, PROVIDERS, MODELS, {}, RoutingDefaults())

WORDS = st.dictionaries(
    st.sampled_from(["", "timeout", "server_error", "client_error"]), st.integers(1, 40)
)
ATTEMPTS = st.fixed_dictionaries(
    {(model.id, model.provider_id): WORDS for model in MODELS.values()}
)
SUBJECTS = st.sampled_from(
    [*(("model", id_) for id_ in MODELS), *(("provider", id_) for id_ in PROVIDERS)]
)
STANDINGS = st.lists(
    st.builds(
        lambda host, subject, state, at: Standing(
            host, subject[0], subject[1], state, "open", "x", at, at + 9
        ),
        st.sampled_from(["h1", "h2"]),
        SUBJECTS,
        st.sampled_from(["down", "degraded", "silent"]),
        st.integers(NOW - 99, NOW),
    ),
    max_size=6,
)


@given(ATTEMPTS, STANDINGS, st.randoms())
def test_a_model_is_not_told_of_beside_its_provider(attempts, ill, rng):
    items = judge(Facts(NOW, SNAPSHOT, [], ill, attempts=attempts)).items
    ids = [each.id for each in items]
    assert len(ids) == len(set(ids))
    ranks = [SEVERITIES.index(each.severity) for each in items]
    assert ranks == sorted(ranks)
    failing = {each.subject_id for each in items if each.kind == "provider_failing"}
    for each in items:
        if each.kind == "model_failing":
            assert each.facts["provider_id"] not in failing
        if each.kind.endswith("_failing"):
            assert each.facts["failed_attempts"] <= each.facts["attempts"]
    mixed = rng.sample(ill, len(ill))
    again = judge(Facts(NOW, SNAPSHOT, [], mixed, attempts=attempts)).items
    assert [each.id for each in again] == ids


@given(ATTEMPTS, STANDINGS)
def test_whoever_rests_is_told_of(attempts, ill):
    items = judge(Facts(NOW, SNAPSHOT, [], ill, attempts=attempts)).items
    told = {(each.subject_kind, each.subject_id) for each in items}
    for each in ill:
        if each.state == "down":
            owner = MODELS[each.id].provider_id if each.kind == "model" else each.id
            assert told & {(each.kind, each.id), ("provider", owner)}


@given(ATTEMPTS)
def test_what_waits_is_not_counted(attempts):
    facts = Facts(NOW, SNAPSHOT, [], [], attempts=attempts)
    found = judge(facts)
    rests = {each.id: Snooze(each.id, NOW + 1, "x") for each in found.items[:1]}
    after = judge(Facts(NOW, SNAPSHOT, [], [], attempts=attempts, snoozes=rests))
    assert [each.id for each in after.items] == [each.id for each in found.items[1:]]
    assert [each.id for each, _ in after.snoozed] == list(rests)
    assert sum(after.counts.values()) == len(after.items)

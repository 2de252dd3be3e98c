"""Whatever is asked and however it ends, every view comes to the same: requests, tokens, money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.system.harness import Gateway, running, wait_until
from tests.system.mixed_load import KINDS, TOKENS, MixedLoad, Tally, set_up_models
from tests.system.views_kit import ENDINGS, Views, following, nanos, of_rows

pytestmark = pytest.mark.system

ROUTES = "route_success,route_error"


@pytest.fixture
def loaded(tmp_path) -> Iterator[Gateway]:
    with running(tmp_path, f"sqlite:///{tmp_path / 'hub.sqlite'}") as gateway:
        set_up_models(gateway)
        made = gateway.admin("POST", "apikeys", {"name": "mixed"})
        gateway.key, gateway.key_id = made["key"], made["id"]
        yield gateway


@pytest.mark.parametrize(
    "count", [300, pytest.param(5000, marks=pytest.mark.rehearse)], ids=["short", "long"]
)
def test_all_views_of_a_mixed_load_come_to_the_same(loaded, count):
    with following(loaded, f"types={ROUTES}&key={loaded.key_id}") as feed:
        tally = MixedLoad([loaded], loaded.key).run(count)
        assert tally.kinds.keys() == KINDS.keys()
        assert tally.replays > 0
        views = Views(loaded, loaded.key_id)
        wait_until(lambda: views.of_buckets()["requests"] >= len(tally.said), 20, "every row")
        wait_until(lambda: len(feed.events) >= len(tally.said), 10, "every event")
        assert "dropped" not in feed.words
    check_rows(views, tally)
    expected = of_rows(views.log())
    assert expected["requests"] == len(tally.said)
    assert all(expected.values()), expected
    told = of_rows(feed.events)
    for name in TOKENS[2:]:  # no event has these
        del told[name]
    for name, found in {
        "attempts": views.of_attempts(),
        "sums of requests": views.of_buckets(),
        "sums of attempts": views.of_attempt_buckets(),
        "stats": views.of_stats(),
        "stats by model": views.of_stats("model"),
        "stats by key, mode and endpoint": views.of_stats("key,mode,endpoint"),
        "time series": views.of_series(),
        "metrics": views.of_metrics(),
        "spend": views.of_spend(),
        "the key itself": views.of_own_key(loaded.key),
        "events": told,
    }.items():
        assert found == {each: expected[each] for each in found}, name


def check_rows(views: Views, tally: Tally) -> None:
    """Each request has one row, which says what its client was told."""
    log = views.log()
    rows = {row["request_id"]: row for row in log}
    assert len(log) == len(rows)
    assert rows.keys() == tally.said.keys()
    endings: Counter[str] = Counter()
    for request_id, said in tally.said.items():
        row = rows[request_id]
        assert row["outcome"] in said.endings, (said, row)
        endings[row["outcome"]] += 1
        if said.tokens is not None:
            assert tuple(row[name] for name in TOKENS) == said.tokens, (said, row)
            assert nanos(row["estimated_cost_usd"]) == said.nanousd, (said, row)
    assert set(endings) == set(ENDINGS)

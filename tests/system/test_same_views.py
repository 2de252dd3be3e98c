"""Whoever is asked says the same: every view, from every worker of every host."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import PostgresServer
from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned, running, wait_until
from tests.system.mixed_load import KINDS, MixedLoad, Tally, set_up_models
from tests.system.test_reconciliation import ROUTES
from tests.system.views_kit import EventReader, following, metrics

pytestmark = pytest.mark.system

MOMENTS = frozenset({"as_of", "from", "to", "per_second", "per_day_usd"})
"""When somebody was asked, which is each time another, and what is divided by the time until
then."""

WINDOWS = frozenset({"1m", "5m"})
"""Times that move on between two who are asked."""

PER_HOST = (
    "tokenhub_requests_total", "tokenhub_tokens_total", "tokenhub_cost_usd_total",
    "tokenhub_attempts_total", "tokenhub_request_latency_ms_count", "tokenhub_request_errors_total",
)  # fmt: skip


@dataclass
class Place:
    """Hosts that have served a mixed load, and a connection to each of their workers."""

    gateways: list[Gateway]
    workers: list[list[Pinned]]
    tally: Tally
    feeds: list[EventReader]
    began_at: int

    @property
    def first(self) -> Gateway:
        return self.gateways[0]

    def everywhere(self, path: str) -> list[Any]:
        """What every worker of every host answers, but for the moment."""
        replies = [
            each.ask("GET", f"/admin/v1/{path}", token=ADMIN_TOKEN)
            for workers in self.workers
            for each in workers
        ]
        assert {reply.status for reply in replies} == {200}, (path, replies[0].body)
        return [timeless(reply.json) for reply in replies]

    def answered(self, number: int) -> str:
        """The id of a plain request that was answered."""
        return [id_ for id_, said in self.tally.said.items() if said.kind == "chat"][number]


def timeless(found: Any) -> Any:
    """An answer without what must differ."""
    if isinstance(found, dict):
        return {name: timeless(each) for name, each in found.items() if name not in MOMENTS}
    if isinstance(found, list):
        return [timeless(each) for each in found if not _is_of_moment(each)]
    return found


def _is_of_moment(found: Any) -> bool:
    return isinstance(found, dict) and found.get("window") in WINDOWS


@pytest.fixture(
    scope="module",
    params=["three workers", pytest.param("two hosts", marks=pytest.mark.postgres)],
)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("same")
    with ExitStack() as stack:
        if request.param == "three workers":
            dsn = f"sqlite:///{directory / 'hub.sqlite'}"
            gateways = [stack.enter_context(running(directory, dsn, workers=3))]
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            gateways = _two_hosts(stack, directory, server.create_database())
        yield _load(stack, gateways)


def _two_hosts(stack: ExitStack, directory: Path, dsn: str) -> list[Gateway]:
    for name in ("one", "two"):
        (directory / name).mkdir()
    one = stack.enter_context(running(directory / "one", dsn))
    two = Gateway(directory / "two", dsn, simulator_port=one.simulator_port)
    stack.callback(two.stop)
    two.start()
    one.peers.append(two)
    return [one, two]


def _load(stack: ExitStack, gateways: Sequence[Gateway]) -> Place:
    first = gateways[0]
    set_up_models(first)
    made = first.admin("POST", "apikeys", {"name": "mixed"})
    first.wait_for_peers()
    query = f"types={ROUTES},feedback&key={made['id']}"
    feeds = [stack.enter_context(following(each, query)) for each in gateways]
    began_at = int(time.time() * 1000)
    load = MixedLoad(gateways, made["key"])
    load.run(3 * len(KINDS))
    place = Place(list(gateways), [], load.tally, feeds, began_at)
    _say(place, made["key"])
    wanted = len(load.tally.said) + 2
    for feed in feeds:
        wait_until(lambda: len(feed.events) >= wanted, 15, "every event")  # noqa: B023
    for each in gateways:
        place.workers.append(each.each_worker())
        for connection in place.workers[-1]:
            stack.enter_context(closing(connection))
    return place


def _say(place: Place, key: str) -> None:
    """What the owner, an administrator and a stranger think, told to the last host."""
    last = place.gateways[-1]
    stranger = place.first.admin("POST", "apikeys", {"name": "stranger"})["key"]
    place.first.wait_for_peers()
    said: list[tuple[str, dict[str, Any]]] = [
        (key, {"score": 0.25}), (ADMIN_TOKEN, {"label": "good"}), (stranger, {"score": 1}),
    ]  # fmt: skip
    for number, (token, fields) in enumerate(said):
        body = {"request_id": place.answered(number), **fields}
        assert last.ask("POST", "/v1/feedback", body, token=token).status == 202


VIEWS = (
    "logs?limit=1000", "logs?outcome=failed,cut,refused&limit=10", "logs/histogram?step_secs=60",
    "logs/facets?field=model", "audit?limit=100", "stats", "stats?group=model,provider",
    "stats?group=key&order=requests", "stats?group=outcome,endpoint",
    "tsdb/query?metric=requests&group=model&step=10000", "tsdb/query?metric=cost&group=key",
    "tsdb/query?metric=latency&agg=p95&group=provider", "spend?by=key&period=day",
    "spend?by=key&period=total", "rewards?limit=100", "health/transitions",
    "usage?group=key", "overview?cmp=0", "setup",
    "models", "providers", "apikeys", "routing-config",
)  # fmt: skip


def test_every_view_is_the_same_from_every_worker_of_every_host(place):
    for path in VIEWS:
        first, *others = place.everywhere(_within(place, path))
        assert first, path
        for other in others:
            assert other == first, path


def _within(place: Place, path: str) -> str:
    """Between two fixed moments, where a view would end now."""
    until = place.began_at + 3_600_000
    if path.startswith("tsdb"):
        return f"{path}&start={place.began_at}&end={until}"
    if "group=" in path or "overview" in path or "histogram" in path or "facets" in path:
        return f"{path}&from={place.began_at}&to={until}"
    return path


def test_decisions_and_what_was_said_of_answers_are_the_same_everywhere(place):
    for number, score in ((0, 0.25), (1, 1.0), (2, None)):
        request_id = place.answered(number)
        first, *others = place.everywhere(f"decisions/{request_id}")
        assert all(other == first for other in others)
        [reward, *_], *more = (
            each["rewards"] for each in place.everywhere(f"rewards?request_id={request_id}")
        )
        assert reward["feedback"] == score
        assert all(each[0] == reward for each in more)


def test_every_host_hears_of_every_request_and_of_what_counts_of_what_was_said(place):
    for feed in place.feeds:
        routes = feed.of(*ROUTES.split(","))
        assert {each["request_id"] for each in routes} == set(place.tally.said)
        assert len(routes) == len(place.tally.said)
        said = {each["request_id"]: (each["score"], each["by"]) for each in feed.of("feedback")}
        assert said == {
            place.answered(0): (0.25, "key"),
            place.answered(1): (1.0, "administrator"),
        }


def test_the_workers_of_a_host_have_the_same_metrics_and_the_hosts_all_requests(place):
    served = 0.0
    for gateway, workers in zip(place.gateways, place.workers, strict=True):
        found = [
            {name: value for name, value in metrics(each) if name.startswith(PER_HOST)}
            for each in [gateway, *workers]
        ]
        assert all(each == found[0] for each in found)
        served += sum(value for name, value in found[0].items() if name.startswith(PER_HOST[0]))
    assert served == len(place.tally.said)

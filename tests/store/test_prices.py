"""Imported prices in the catalog: only where they belong, only when they differ, source or not."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import gevent.server
import pytest

from tests.provisioning_kit import Hub
from tokenhub import data_dir, prices
from tokenhub.config import Settings
from tokenhub.db import Database
from tokenhub.domain import Model, Price, Provider
from tokenhub.errors import Conflict, Unavailable
from tokenhub.price_source import SOURCE_BYTES_MAX
from tokenhub.prices import Prices

TABLE = {
    "gpt-4o": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05,
               "litellm_provider": "openai", "max_input_tokens": 128000},
    "o1": {"input_cost_per_token": 1.5e-05, "output_cost_per_token": 6e-05,
           "litellm_provider": "openai"},
}  # fmt: skip
GPT_4O = Price(2_500_000_000, 10_000_000_000)


class World(Hub):
    """A catalog with models, and a price table in a file."""

    def __init__(self, directory: Path, database: Database) -> None:
        super().__init__(directory / "credentials", database)
        self.table = directory / "table.json"
        self.table.write_text(json.dumps(TABLE))
        self.data = directory / "data"
        self.data.mkdir()
        self.prices = self.make_prices(str(self.table))
        self.save(Provider("acme", "openai", "https://api.openai.com"))

    def make_prices(self, source: str, **variables: str) -> Prices:
        environ = {"TOKENHUB_DATA_DIR": str(self.data), "TOKENHUB_PRICING_SOURCE": source}
        settings = Settings.from_env({**environ, **variables})
        return Prices(settings=settings, catalog=self.catalog, database=self.database)

    def add(self, name: str, **fields: Any) -> None:
        self.save(Model(name, fields.pop("provider_id", "acme"), name, **fields))

    def price(self, name: str) -> Price:
        found = self.model(name)
        assert found is not None
        return replace(found.price, version=0)


@pytest.fixture
def world(tmp_path: Path, database: Database) -> World:
    return World(tmp_path, database)


def counts(report: prices.Report) -> tuple[int, int, int]:
    return report.updated, report.unchanged, report.unmatched


def test_models_without_a_price_get_one_and_say_whence(world):
    for name in ("gpt-4o", "o1", "unheard-of"):
        world.add(name)
    report = world.prices.refresh()
    assert counts(report) == (2, 0, 1)
    assert (report.source, report.error) == (str(world.table), "")
    model = world.model("gpt-4o")
    assert replace(model.price, version=0) == GPT_4O
    assert (model.pricing_source, model.max_context_tokens) == ("litellm", 128_000)
    assert model.pricing_origin == f"{world.table}#gpt-4o"
    assert not world.model("unheard-of").price.is_known
    assert world.catalog.current().models["gpt-4o"] == model
    rows = [row for row in world.audit() if row["action"] == "model.price"]
    assert [(row["actor"], row["resource"]) for row in rows] == [("prices", "o1"),
                                                                ("prices", "gpt-4o")]  # fmt: skip
    detail = json.loads(rows[1]["detail"])
    assert (detail["before"]["input_per_1k"], detail["after"]["input_per_1k"]) == (None, 0.0025)


def test_without_news_nothing_is_written(world):
    world.add("gpt-4o")
    world.prices.refresh()
    before = world.generation()
    assert counts(world.prices.refresh()) == (0, 1, 0)
    assert world.generation() == before


def test_a_price_that_somebody_set_is_never_overwritten(world):
    world.add("gpt-4o", price=Price(1, 2), pricing_source="manual")
    world.add("o1", price=Price(0, 0), pricing_source="provider")
    assert counts(world.prices.refresh()) == (0, 0, 0)
    assert (world.price("gpt-4o"), world.price("o1")) == (Price(1, 2), Price(0, 0))


def test_an_imported_price_follows_the_table_until_somebody_sets_one(world):
    world.add("gpt-4o")
    world.prices.refresh()
    first = world.model("gpt-4o").price.version
    dearer = {"gpt-4o": {**TABLE["gpt-4o"], "input_cost_per_token": 3e-06}}
    world.table.write_text(json.dumps(dearer))
    assert counts(world.prices.refresh()) == (1, 0, 0)
    assert world.price("gpt-4o").input_per_mtok == 3_000_000_000
    assert world.model("gpt-4o").price.version > first  # what was billed stays explained
    by_hand = replace(world.model("gpt-4o"), price=Price(7, 7), pricing_source="manual")
    world.save(by_hand)
    assert counts(world.prices.refresh()) == (0, 0, 0)
    assert world.price("gpt-4o") == Price(7, 7)


def test_the_demo_and_servers_of_one_s_own_are_left_alone(world):
    world.save(Provider("demo", "openai", "http://demo", demo=True))
    world.save(Provider("gpu", "vllm", "http://10.0.0.1"))
    world.add("gpt-4o", provider_id="demo")
    world.add("o1", provider_id="gpu")
    assert counts(world.prices.refresh()) == (0, 0, 1)


def test_many_models_are_priced_in_batches(world, monkeypatch):
    monkeypatch.setattr(prices, "BATCH", 3)
    table = {f"m{i}": TABLE["gpt-4o"] for i in range(10)}
    world.table.write_text(json.dumps(table))
    for name in table:
        world.add(name)
    assert counts(world.prices.refresh()) == (10, 0, 0)
    assert {world.price(name) for name in table} == {GPT_4O}
    assert all(each.price.is_known for each in world.catalog.current().models.values())


def test_what_an_operator_sets_meanwhile_stays(world, monkeypatch):
    world.add("gpt-4o")
    world.add("o1")
    make_step = prices._step

    def slow(before: Model, *rest: Any) -> Any:
        if before.id == "gpt-4o":
            world.save(replace(before, price=Price(7, 7), pricing_source="manual"))
        return make_step(before, *rest)

    monkeypatch.setattr(prices, "_step", slow)
    assert counts(world.prices.refresh()) == (1, 0, 0)
    assert world.price("gpt-4o") == Price(7, 7)
    assert world.price("o1").is_known


def test_what_was_updated_before_somebody_was_faster_is_counted(world, monkeypatch):
    monkeypatch.setattr(prices, "BATCH", 1)
    world.add("a", provider_id="acme", price=Price(1, 2))
    world.add("gpt-4o")
    world.add("o1")
    make_step = prices._step

    def slow(before: Model, *rest: Any) -> Any:
        if before.id == "o1" and before.weight != 9:  # behind gpt-4o's
            world.save(replace(before, weight=9))
        return make_step(before, *rest)

    monkeypatch.setattr(prices, "_step", slow)
    assert counts(world.prices.refresh()) == (2, 0, 0)
    assert (world.model("o1").weight, world.price("o1").is_known) == (9, True)


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "unreadable"), (b"<html>", "not_a_table"), (b"{}", "not_a_table"),
     (b" " * (SOURCE_BYTES_MAX + 1), "too_large")],
)  # fmt: skip
def test_the_last_good_table_stands_in_while_its_source_fails(world, content, word):
    world.add("gpt-4o")
    first = world.prices.refresh()
    world.add("o1")
    if content is None:
        world.table.unlink()
    else:
        world.table.write_bytes(content)
    report = world.prices.refresh()
    assert counts(report) == (1, 1, 0)
    assert (report.error, report.fetched_at) == (word, first.fetched_at)
    status = world.prices.status()
    assert (status.error, status.entries, status.fetched_at) == (word, 2, first.fetched_at)
    assert status.tried_at >= status.fetched_at
    world.table.write_text(json.dumps(TABLE))
    assert world.prices.refresh().error == ""
    assert world.prices.status().error == ""


def test_a_table_is_kept_for_its_owner_alone_and_of_its_own_source(world):
    world.prices.refresh()
    assert {path.name: path.stat().st_mode & 0o777 for path in world.data.iterdir()} == {
        "prices.json": 0o600,
        "prices-status.json": 0o600,
        "prices.lock": 0o600,
    }
    other = world.make_prices(str(world.table) + ".other")
    with pytest.raises(Unavailable, match=r"cannot be read \(unreadable\)") as caught:
        other.refresh()
    assert caught.value.code == "price_source_failed"
    assert world.prices.status().error == "unreadable"


def test_a_kept_table_that_was_damaged_is_not_used(world):
    world.prices.refresh()
    (world.data / "prices.json").write_text("{")
    world.table.unlink()
    with pytest.raises(Unavailable):
        world.prices.refresh()
    (world.data / "prices-status.json").write_text("[]")
    assert world.prices.status() == prices.Status()


def test_a_directory_that_cannot_be_written_keeps_no_price_away(world, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    world.add("gpt-4o")
    monkeypatch.setattr(data_dir, "replace_file", full)
    assert counts(world.prices.refresh()) == (1, 0, 0)


def test_without_its_lock_nothing_is_refreshed(world):
    world.add("gpt-4o")
    (world.data / "prices.lock").mkdir()  # as with no space for another file
    with pytest.raises(Unavailable, match=r"prices\.lock cannot be opened") as caught:
        world.prices.refresh()
    assert caught.value.code == "price_source_failed"


def test_one_refresh_at_a_time(world):
    world.add("gpt-4o")
    with (world.data / "prices.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Conflict) as caught:
            world.prices.refresh()
    assert caught.value.code == "refresh_running"
    assert counts(world.prices.refresh()) == (1, 0, 0)


def test_without_a_source_there_is_nothing_to_refresh(world):
    with pytest.raises(Conflict) as caught:
        world.make_prices("").refresh()
    assert caught.value.code == "no_price_source"


def test_the_job_has_failed_while_only_the_kept_table_can_be_read(world):
    world.add("gpt-4o")
    assert counts(world.prices.refresh_all()) == (1, 0, 0)
    world.table.unlink()
    world.add("o1")
    with pytest.raises(Unavailable) as caught:
        world.prices.refresh_all()
    assert caught.value.code == "price_source_failed"
    assert world.price("o1").is_known


Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Any:
    """Serves one answer to whoever asks; returns the URL of a table."""
    servers = []

    def start(answer: bytes) -> str:
        def handle(sock: Any, _: object) -> None:
            asked.append(sock.recv(65536).split(b"\r\n")[0])
            sock.sendall(answer)
            sock.close()

        server = gevent.server.StreamServer(("127.0.0.1", 0), handle)
        server.start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/prices.json"

    asked: list[bytes] = []
    start.asked = asked  # type: ignore[attr-defined]
    yield start
    for server in servers:
        server.stop(timeout=0)


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n".encode() + body


def test_a_table_comes_over_http_as_well(world, serve):
    world.add("gpt-4o")
    url = serve(http(json.dumps(TABLE).encode()))
    assert counts(world.make_prices(url).refresh()) == (1, 0, 0)
    assert serve.asked == [b"GET /prices.json HTTP/1.1"]
    assert world.model("gpt-4o").pricing_origin == f"{url}#gpt-4o"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (http(b"no", "404 Not Found"), "http_404"),
        (http(b"", "302 Found"), "http_302"),
        (http(b"no", "401 Unauthorized"), "http_401"),
        (http(b"{", length=100), "answer_cut"),
        (http(b"", length=SOURCE_BYTES_MAX + 1), "response_too_large"),
        (b"", "connection_closed"),
        (b"SSH-2.0-x\r\n", "malformed_answer"),
    ],
)
def test_a_source_that_fails_is_told_in_a_word(world, serve, answer, word):
    with pytest.raises(Unavailable, match=rf"cannot be read \({word}\)"):
        world.make_prices(serve(answer)).refresh()


def test_the_source_is_behind_the_guard_as_providers_are(world, serve):
    url = serve(http(json.dumps(TABLE).encode()))
    for source, more in (
        (url, {"TOKENHUB_ALLOW_PRIVATE_PROVIDERS": "false"}),
        ("http://169.254.169.254/prices.json", {}),
    ):
        with pytest.raises(Unavailable, match="address_refused"):
            world.make_prices(source, **more).refresh()
    assert serve.asked == []


def test_a_source_with_credentials_or_a_query_is_not_asked_and_not_shown(world, serve):
    url = serve(http(b"{}")).replace("http://", "http://me:canary@") + "?token=canary"
    with pytest.raises(Unavailable, match="unreadable") as caught:
        world.make_prices(url).refresh()
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(world.prices.status())

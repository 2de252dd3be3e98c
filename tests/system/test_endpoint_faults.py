"""Every endpoint x every way to fail, with providers that speak its dialect and that do not.

Each row says what the caller gets, in the endpoint's own words, and how the request is written
down. All requests are made first, by two workers, and judged afterwards.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.endpoints_kit import COUNT, EMBEDDING, ENDPOINTS, PLAN, Endpoint
from tests.system.budget_kit import CENT, Payer, make_payer, settled
from tests.system.harness import PROVIDER_KEY, Gateway, Pinned, Reply, running, wait_until
from tests.system.load import Row, rows_by_id

pytestmark = pytest.mark.system

KINDS = ("openai", "anthropic")
"""Types of providers: what one of them takes as it is has to be translated for the other."""
CAPABILITIES = ["chat", "tools", "json", "completions", "embeddings"]
HANG_SECS = 2.0
LANES = 30
PRICES = {"input_per_1k": 0.1, "output_per_1k": 0.1}


@dataclass(frozen=True)
class Fault:
    """What a provider does, and what comes of it.

    Args:
        name: as the simulator knows it.
        status: what the caller gets if there is nobody else to ask.
        code: of the error, if it is in our words; "" = in the provider's.
        rescues: somebody else is asked.
        takes_long: before it is known.
    """

    name: str
    status: int
    code: str = ""
    error_class: str = ""
    rescues: bool = True
    takes_long: bool = False


FAILED = "all_attempts_failed"
BEFORE = (
    Fault("400", 400, "", "upstream_refused", rescues=False),
    Fault("policy", 400, "", "upstream_refused", rescues=False),
    Fault("context", 400, "", "upstream_refused"),
    Fault("401", 502, FAILED),
    Fault("404", 502, FAILED),
    Fault("429", 429, "rate_limited"),
    Fault("500", 502, FAILED),
    Fault("529", 503, "overloaded"),
    Fault("drop", 502, FAILED),
    Fault("malformed", 502, FAILED),
    Fault("content-type", 502, FAILED),
    Fault("hang", 504, "timeout", takes_long=True),
)
AFTER = (
    Fault("cut", 200, error_class="stream_cut"),
    Fault("error-frame-3", 200, error_class="server_error"),
    Fault("silent-after-3", 200, error_class="stream_idle", takes_long=True),
)
SLOW = {"hang": "fault-hang", "long": "stream-1000-20"}
"""What callers do not wait for."""


@dataclass(frozen=True)
class Case:
    """A request to one endpoint whose provider fails.

    Args:
        kind: its provider's type.
        is_alone: there is nobody else to ask.
    """

    endpoint: Endpoint
    stream: bool
    kind: str
    fault: Fault
    is_alone: bool = True

    def __str__(self) -> str:
        how = "streamed" if self.stream else "whole"
        rest = "" if self.is_alone else "-and-one-well"
        return f"{self.endpoint}-{how}-{self.kind}-{self.fault.name}{rest}"

    @property
    def model(self) -> str:
        return f"{self.kind}-{self.fault.name}"

    @property
    def is_told(self) -> bool:
        """The answer has begun before anybody is asked."""
        return self.stream and self.endpoint is PLAN


def ways() -> list[tuple[Endpoint, bool, str]]:
    """Endpoints, whole or streamed, by types of providers that can be asked there."""
    return [
        (endpoint, stream, kind)
        for endpoint in ENDPOINTS
        if endpoint is not COUNT
        for stream in ([False, True] if endpoint.streams else [False])
        for kind in (KINDS if endpoint is not EMBEDDING else KINDS[:1])
    ]


BEFORE_CASES = [
    Case(*way, fault, is_alone) for fault in BEFORE for way in ways() for is_alone in (True, False)
]
AFTER_CASES = [
    Case(*way, fault) for fault in AFTER for way in ways() if way[1] and way[0] is not PLAN
]


@dataclass(frozen=True)
class Leaving:
    """A caller that leaves before or after the first byte of its answer."""

    endpoint: Endpoint
    stream: bool
    kind: str
    has_seen: bool = False

    def __str__(self) -> str:
        how = "streamed" if self.stream else "whole"
        return f"{self.endpoint}-{how}-{self.kind}-{'after' if self.has_seen else 'before'}"

    @property
    def model(self) -> str:
        is_long = self.has_seen and self.endpoint is not PLAN  # whose phases are whole answers
        return f"{self.kind}-{'long' if is_long else 'hang'}"


LEAVING = [
    *(Leaving(*way) for way in ways() if not (way[0] is PLAN and way[1])),
    *(Leaving(*way, has_seen=True) for way in ways() if way[1]),
]


@dataclass
class Seen:
    """What came of a request."""

    reply: Reply
    row: Row = field(default_factory=dict)


class Stand:
    """A provider of each type for each fault, and what happened in every case."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._workers: list[Pinned] = []
        self.payer = make_payer(gateway, 10_000_000)
        self.leaver = make_payer(gateway, 10_000_000, max_parallel=2)
        for kind in KINDS:
            self._add(kind, "well", "sim-fast")
            for name, upstream in SLOW.items():
                self._add(kind, name, upstream)
            for fault in (*BEFORE, *AFTER):
                self._add(kind, fault.name, f"fault-{fault.name}")
        self.left_secs = {str(each): self._leave(each) for each in LEAVING}
        cases = [*BEFORE_CASES, *AFTER_CASES]
        # One after the other, so that none finds its provider at rest; who waits, waits together.
        lanes: dict[str, list[Case]] = {}
        for each in cases:
            alone = str(each) if each.fault.takes_long else each.model
            lanes.setdefault(alone, []).append(each)
        self.seen: dict[str, Seen] = {}
        with ThreadPoolExecutor(LANES) as pool:
            for found in pool.map(self._play_all, lanes.values()):
                self.seen |= found
        total = len(self.seen) + len(LEAVING)
        rows = wait_until(lambda: self._rows(total), what="log rows")
        for seen in self.seen.values():
            [seen.row] = rows[seen.reply.headers["x-request-id"]]
        self.left = {row["client_request_id"]: row for found in rows.values() for row in found}

    def _rows(self, total: int) -> dict[str, list[Row]] | None:
        rows = rows_by_id(self.gateway)
        return rows if len(rows) >= total else None

    def _add(self, kind: str, name: str, upstream: str) -> None:
        ident = f"{kind}-{name}"
        self.gateway.admin("POST", "providers", {
            "id": ident, "type": kind, "api_key": PROVIDER_KEY,
            "base_url": f"http://127.0.0.1:{self.gateway.simulator_port}",
            "native_responses": kind == "openai",
        })  # fmt: skip
        self.gateway.add_model(
            ident, provider_id=ident, upstream_model=upstream, capabilities=CAPABILITIES,
            tags=[ident], max_context_tokens=0, **PRICES,
        )  # fmt: skip

    def ask(self, endpoint: Endpoint, body: Any, payer: Payer, **headers: str) -> Reply:
        return self.gateway.ask("POST", endpoint.path, body, token=payer.key, **headers)

    def _play_all(self, cases: list[Case]) -> dict[str, Seen]:
        return {str(each): self._play(each) for each in cases}

    def _play(self, case: Case) -> Seen:
        model = case.model
        self.gateway.admin("POST", f"health/{model}/clear")
        who = {"X-TokenHub-Tags": model}
        if not case.is_alone:
            who = {"X-TokenHub-Fallbacks": f"{case.kind}-well"}
        body = case.endpoint.body(model, stream=case.stream)
        return Seen(self.ask(case.endpoint, body, self.payer, **who))

    def _leave(self, case: Leaving) -> float:
        """How long the provider was kept after its caller had gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        body = json.dumps(case.endpoint.body(case.model, stream=case.stream))
        connection.request("POST", case.endpoint.path, body, {
            "Authorization": f"Bearer {self.leaver.key}", "X-TokenHub-Tags": case.model,
            "X-Request-Id": str(case),
        })  # fmt: skip
        wait_until(lambda: self._open_upstream() == 1, what=f"{case}: the provider to be asked")
        answer = None
        if case.has_seen:
            answer = connection.getresponse()
            answer.readline()
        left = time.monotonic()
        connection.close()
        if answer is not None:
            answer.close()
        wait_until(lambda: self._open_upstream() == 0, 5, f"{case}: the provider to be let go")
        return time.monotonic() - left

    def workers(self) -> list[Pinned]:
        """A connection to each."""
        self._workers = self._workers or self.gateway.each_worker()
        return self._workers

    def _open_upstream(self) -> int:
        return int(self.gateway.simulator_stats()["open_requests"])


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    directory = tmp_path_factory.mktemp("endpoints")
    patience = {
        "TOKENHUB_PROVIDER_TIMEOUT_SECS": str(HANG_SECS),
        "TOKENHUB_STREAM_IDLE_SECS": str(HANG_SECS),
        "TOKENHUB_MAX_BODY_MB": "1",
        "TOKENHUB_HEALTH_PROBE_DISABLED": "true",
    }
    dsn = f"sqlite:///{directory / 'hub.sqlite'}"
    with running(directory, dsn, extra=patience) as gateway:
        found = Stand(gateway)
        yield found
        for worker in found.workers():
            worker.close()


def assert_says_no_more_than_it_may(reply: Reply) -> None:
    assert PROVIDER_KEY.encode() not in reply.body
    assert b"Traceback" not in reply.body
    assert b"127.0.0.1" not in reply.body


@pytest.mark.parametrize("case", [each for each in BEFORE_CASES if each.is_alone], ids=str)
def test_a_provider_that_fails_is_told_in_the_words_of_the_endpoint(stand, case):
    seen, fault = stand.seen[str(case)], case.fault
    reply = seen.reply
    assert_says_no_more_than_it_may(reply)
    if case.is_told:
        assert reply.status == 200
        error = case.endpoint.broken_off_with(reply.body)
    else:
        is_anthropic_s = case.endpoint.speaks_messages and fault.code == "overloaded"
        assert reply.status == (529 if is_anthropic_s else fault.status)
        error = case.endpoint.error_of(reply.status, reply.body)
    assert error["message"]
    if fault.code:
        assert error["code"] == fault.code
        assert b"simulated" not in reply.body
    if fault.status == 429 and not case.is_told:
        assert int(reply.headers["retry-after"]) >= 1
    row = seen.row
    assert row["endpoint"] == case.endpoint.path
    assert row["status_code"] == fault.status
    assert row["outcome"] == ("failed" if fault.status > 400 else "refused")
    assert row["error_class"] == (fault.code or fault.error_class)


@pytest.mark.parametrize("case", [each for each in BEFORE_CASES if not each.is_alone], ids=str)
def test_somebody_else_answers_for_who_fails_unless_the_fault_is_the_callers(stand, case):
    reply, row = stand.seen[str(case)].reply, stand.seen[str(case)].row
    if not case.fault.rescues:
        assert (row["status_code"], row["attempts"]) == (case.fault.status, 1)
        return
    assert (reply.status, row["attempts"], row["outcome"]) == (200, 2, "rescued")
    assert row["model_id"] == f"{case.kind}-well"
    assert row["estimated_cost_usd"] > 0
    if case.stream:
        assert b"error" not in reply.body.rpartition(b"event: result")[0]
    else:
        assert "error" not in reply.json or reply.json["error"] is None


@pytest.mark.parametrize("case", AFTER_CASES, ids=str)
def test_a_stream_that_breaks_ends_with_the_dialects_error_and_is_billed(stand, case):
    reply, row = stand.seen[str(case)].reply, stand.seen[str(case)].row
    assert_says_no_more_than_it_may(reply)
    assert reply.status == 200
    assert b"simulated" not in reply.body
    error = case.endpoint.broken_off_with(reply.body)
    assert error["message"]
    assert (row["outcome"], row["error_class"]) == ("cut", case.fault.error_class)
    assert row["endpoint"] == case.endpoint.path
    assert row["output_tokens"] > 0
    assert row["estimated_cost_usd"] > 0


@pytest.mark.parametrize("case", LEAVING, ids=str)
def test_who_leaves_is_written_down_and_its_provider_let_go_within_a_second(stand, case):
    assert stand.left_secs[str(case)] < 1.0
    row = stand.left[str(case)]
    assert (row["endpoint"], row["outcome"]) == (case.endpoint.path, "client_closed")
    assert row["estimated_cost_usd"] > 0  # the provider was at work for it
    assert row["attempts"] == 1


def test_those_who_leave_hurt_nobody_and_nothing_of_theirs_stays_reserved(stand):
    """Nor of their two places: each of them needed one."""
    rows = [stand.left[str(case)] for case in LEAVING]
    settled(stand.gateway, stand.leaver, sum(row["estimated_cost_usd"] for row in rows) / CENT)
    rows = [each.row for each in stand.seen.values()]
    settled(stand.gateway, stand.payer, sum(row["estimated_cost_usd"] for row in rows) / CENT)
    health = {each["model_id"]: each for each in stand.gateway.admin("GET", "health")["models"]}
    for kind in KINDS:
        assert health.get(f"{kind}-long", {"total_errors": 0})["total_errors"] == 0


@pytest.mark.parametrize("fault", ["500", "drop", "malformed"])
def test_tokens_are_counted_whoever_fails_to(stand, fault):
    for kind in KINDS:
        model = f"{kind}-{fault}"
        body = COUNT.body(model)
        reply = stand.ask(COUNT, body, stand.payer, **{"X-TokenHub-Tags": model})
        assert (reply.status, reply.json["input_tokens"] > 0) == (200, True), reply.body


BAD: dict[str, tuple[Any, int, str]] = {
    "no-json": (b"{", 400, "bad_json"),
    "no-object": ([], 400, ""),
    "nothing-in-it": ({}, 400, ""),
    "too-large": ({"padding": "x" * (1 << 20)}, 413, "request_too_large"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_request_is_refused_by_every_worker(stand, endpoint, name):
    body, status, code = BAD[name]
    for worker in stand.workers():
        reply = worker.ask("POST", endpoint.path, body, token=stand.payer.key)
        assert reply.status == status
        error = endpoint.error_of(status, reply.body)
        assert not code or error["code"] == code

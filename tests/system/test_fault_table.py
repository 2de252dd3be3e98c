"""Every way to fail x whole, before and after a stream's first byte x one to three candidates.

Each row of the table says what the caller gets, how many attempts were made, whom it hurts and what
it costs. All requests are made first, by two workers, and judged afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.system.harness import PROVIDER_KEY, Gateway, Reply, free_port, running, wait_until
from tests.system.load import Row, rows_by_id

pytestmark = pytest.mark.system

PROMPT = "Where, of all places, did I put my lamp?"  # 40 bytes: we take it for 10 tokens
PROMPT_TOKENS = 10
TOKEN_NANOUSD = {"m1": 1000, "m2": 1000, "m3": 100_000}
"""What a token costs, read or written. So dear, the third is last whatever has happened before."""


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Args:
        name: as the simulator knows it.
        status: what the caller gets when every candidate fails so.
        attempts_alone: with one candidate: a failure that may pass is tried three times.
        stops: the caller's fault: nobody else is asked.
        hurts: it counts against the model, or against its provider.
        is_provider_wide: the provider's other models would fail alike.
        rests: the model is not asked again for a while.
        is_billed: the provider may have worked for it, so its input is on the bill.
    """

    name: str
    error_class: str
    status: int
    attempts_alone: int = 1
    stops: bool = False
    hurts: bool = True
    rests: bool = False
    is_provider_wide: bool = False
    is_billed: bool = False

    def attempts(self, candidates: int) -> int:
        if self.stops:
            return 1
        if self.attempts_alone == 1:
            return candidates
        return min(candidates + self.attempts_alone - 1, 5)


BEFORE = (
    Fault("400", "client_error", 400, stops=True, hurts=False),
    Fault("413", "client_error", 413, stops=True, hurts=False),
    Fault("422", "client_error", 422, stops=True, hurts=False),
    Fault("policy", "content_policy", 400, stops=True, hurts=False),
    Fault("context", "context_overflow", 400, hurts=False),
    Fault("401", "auth_failed", 502, rests=True, is_provider_wide=True),
    Fault("402", "quota_exhausted", 502, rests=True, is_provider_wide=True),
    Fault("403", "forbidden", 502, rests=True),
    Fault("404", "model_not_found", 502, rests=True),
    Fault("408", "timeout", 504, is_billed=True),
    Fault("409", "conflict", 502, attempts_alone=3),
    Fault("429", "rate_limited", 429, rests=True),
    Fault("quota", "quota_exhausted", 502, rests=True, is_provider_wide=True),
    Fault("500", "server_error", 502, attempts_alone=3),
    Fault("503", "server_error", 502, attempts_alone=3),
    Fault("529", "overloaded", 503, attempts_alone=3),
    Fault("drop", "connection_closed", 502, attempts_alone=3, is_billed=True),
    Fault("redirect", "redirect", 502),
    Fault("content-type", "malformed_answer", 502, is_billed=True),
    Fault("refused", "unreachable", 502, attempts_alone=3, is_provider_wide=True),
)
WHOLE = (
    *BEFORE,
    Fault("hang", "total_deadline", 504, is_billed=True),
    Fault("huge", "response_too_large", 502, is_billed=True),
    Fault("cut", "answer_cut", 502, is_billed=True),
    Fault("silent-after-1", "total_deadline", 504, is_billed=True),
    Fault("malformed", "malformed_answer", 502, is_billed=True),
    Fault("error-frame", "server_error", 502, attempts_alone=3, is_billed=True),
)
FIRST_EVENT = (
    *BEFORE,
    Fault("hang", "first_byte_timeout", 504, is_billed=True),
    Fault("malformed", "malformed_answer", 502, is_billed=True),
    Fault("error-frame", "server_error", 502, attempts_alone=3, is_billed=True),
    # The stream has opened, and nothing was said yet.
    Fault("error-after-start", "overloaded", 503, attempts_alone=3, is_billed=True),
)
AFTER = (
    Fault("cut", "stream_cut", 200),
    Fault("silent-after-3", "stream_idle", 200),
    Fault("error-frame-3", "server_error", 200),
    Fault("malformed-3", "stream_cut", 200),
)


@dataclass(frozen=True)
class Case:
    """A fault, when it happens, how many candidates there are, and whether the last is well."""

    fault: Fault
    when: str  # whole | before | after
    candidates: int
    last_is_well: bool

    def __str__(self) -> str:
        well = "-and-one-well" if self.last_is_well else ""
        return f"{self.when}-{self.fault.name}-{self.candidates - self.last_is_well}{well}"

    @property
    def failing(self) -> int:
        return self.candidates - self.last_is_well


def all_cases() -> list[Case]:
    return [
        Case(fault, when, candidates, last_is_well)
        for when, faults in (("whole", WHOLE), ("before", FIRST_EVENT), ("after", AFTER))
        for fault in faults
        for candidates in (1, 2, 3)
        for last_is_well in ([False, True] if candidates > 1 else [False])
    ]


@dataclass
class Seen:
    """What came of a case."""

    reply: Reply
    health: dict[str, Any]
    row: Row
    attempts: list[Row]


class Stand:
    """Three providers with one model each, and what happened in every case."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.closed_port = free_port()
        self.enabled = 0
        for number in (1, 2, 3):
            self._save_provider(number, gateway.simulator_port)
            gateway.add_model(
                f"m{number}", provider_id=f"p{number}", weight=0 if number == 3 else 10,
                max_context_tokens=0, input_per_1k=0.1 if number == 3 else 0.001,
                output_per_1k=0.1 if number == 3 else 0.001,
            )  # fmt: skip
        for name in ("sim-fast", "sim-smart", "sim-cheap"):
            gateway.admin("PATCH", f"models/{name}", {"enabled": False})
        cases = sorted(all_cases(), key=lambda each: each.candidates)
        made = [(case, *self._play(case)) for case in cases]
        wait_until(lambda: len(rows_by_id(gateway)) >= len(made), what="log rows")
        rows, attempts = rows_by_id(gateway), self._attempts()
        self.seen = {
            str(case): Seen(reply, health, rows[ident][0], attempts[ident])
            for case, reply, health in made
            for ident in [reply.headers["x-request-id"]]
        }

    def _save_provider(self, number: int, port: int) -> None:
        record = {"id": f"p{number}", "base_url": f"http://127.0.0.1:{port}",
                  "api_key": PROVIDER_KEY}  # fmt: skip
        self.gateway.admin("POST", "providers", record)

    def _play(self, case: Case) -> tuple[Reply, dict[str, Any]]:
        gateway = self.gateway
        if case.candidates != self.enabled:
            self.enabled = case.candidates
            for number in (1, 2, 3):
                enabled = number <= case.candidates
                gateway.admin("PATCH", f"models/m{number}", {"enabled": enabled})
        for number in (1, 2, 3):
            gateway.admin("POST", f"health/p{number}/clear")
            is_ill = number <= case.failing
            if case.fault.name == "refused":
                self._save_provider(number, self.closed_port if is_ill else gateway.simulator_port)
            else:
                fault = case.fault.name if is_ill else ""
                gateway.simulate(model=f"m{number}", fault=fault)
        reply = gateway.chat("m1", PROMPT, stream=case.when != "whole")
        found = gateway.admin("GET", "health")
        health = {each["model_id"]: each for each in found["models"]}
        health |= {each["provider_id"]: each for each in found["providers"]}
        for number in (1, 2, 3):
            if case.fault.name == "refused":
                self._save_provider(number, gateway.simulator_port)
            gateway.simulate(model=f"m{number}", fault="")
        return reply, health

    def _attempts(self) -> dict[str, list[Row]]:
        engine = create_engine(self.gateway.dsn)
        try:
            with engine.connect() as connection:
                query = text("SELECT * FROM attempts ORDER BY segment, position, seq")
                found: dict[str, list[Row]] = {}
                for row in connection.execute(query).mappings():
                    found.setdefault(row["request_id"], []).append(dict(row))
                return found
        finally:
            engine.dispose()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    directory = tmp_path_factory.mktemp("faults")
    patience = {
        "TOKENHUB_PROVIDER_TIMEOUT_SECS": "0.4",
        "TOKENHUB_STREAM_IDLE_SECS": "0.4",
        "TOKENHUB_MAX_RESPONSE_MB": "1",
        "TOKENHUB_HEALTH_PROBE_DISABLED": "true",
    }
    dsn = f"sqlite:///{directory / 'hub.sqlite'}"
    with running(directory, dsn, extra=patience) as gateway:
        yield Stand(gateway)


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_a_fault_has_the_effects_that_the_table_says(stand: Stand, case: Case):
    seen, fault = stand.seen[str(case)], case.fault
    assert f'"{PROVIDER_KEY}"' not in seen.reply.body.decode()
    is_rescued = case.last_is_well and not fault.stops and case.when != "after"
    tries = 1 if case.when == "after" else fault.attempts(case.failing)
    if is_rescued:
        tries = case.candidates

    assert seen.reply.status == (200 if is_rescued else fault.status)
    assert seen.reply.headers["x-tokenhub-attempts"] == str(tries)
    assert seen.row["outcome"] == ending_of(case, is_rescued)
    assert seen.row["attempts"] == len(seen.attempts) == tries
    failed = seen.attempts[: -1 if is_rescued else None]
    assert {each["error_class"] for each in failed} == {fault.error_class}
    if case.when != "after":
        assert_bill(seen, failed, fault)
    assert_health(seen, case)


def ending_of(case: Case, is_rescued: bool) -> str:
    if is_rescued:
        return "rescued"
    if case.when == "after":
        return "cut"
    is_callers = case.fault.stops or case.fault.error_class == "context_overflow"
    return "refused" if is_callers else "failed"


def assert_bill(seen: Seen, failed: list[Row], fault: Fault) -> None:
    """A failed attempt costs its input where the provider may have worked, else nothing."""
    tokens = PROMPT_TOKENS if fault.is_billed else 0
    expected = [tokens * TOKEN_NANOUSD[each["model_id"]] for each in failed]
    assert [each["cost_nanousd"] for each in failed] == expected
    total = sum(each["cost_nanousd"] for each in seen.attempts)
    assert seen.row["estimated_cost_usd"] == pytest.approx(total / 1e9, abs=1e-12)
    if seen.reply.status == 200:
        last = seen.attempts[-1]
        assert last["cost_nanousd"] > PROMPT_TOKENS * TOKEN_NANOUSD[last["model_id"]]


def assert_health(seen: Seen, case: Case) -> None:
    """Each failure counts against its own model or provider only; who answered is well."""
    fault = case.fault
    for number in (1, 2, 3):
        names = {"model": f"m{number}", "provider": f"p{number}"}
        failures = sum(
            each["model_id"] == names["model"] and bool(each["error_class"])
            for each in seen.attempts
        )
        blamed = "provider" if fault.is_provider_wide else "model"
        for kind, name in names.items():
            health = seen.health.get(name, {"breaker": "closed", "consec_errors": 0})
            is_hurt = fault.hurts and kind == blamed
            rests = failures > 0 and fault.rests and kind == blamed
            assert health["breaker"] == ("open" if rests else "closed"), name
            if kind == "model":
                assert health["consec_errors"] == (failures if is_hurt else 0), name


@pytest.mark.parametrize("case", [case for case in all_cases() if case.when == "after"], ids=str)
def test_a_stream_that_breaks_is_billed_for_what_came_and_ends_with_an_error(stand, case):
    seen = stand.seen[str(case)]
    assert seen.reply.body.rstrip().splitlines()[-1].startswith(b'data: {"error":')
    assert b"[DONE]" not in seen.reply.body
    [attempt] = seen.attempts
    assert attempt["usage_is_estimate"]
    assert attempt["input_tokens"] == PROMPT_TOKENS
    assert attempt["output_tokens"] > 0
    tokens = PROMPT_TOKENS + attempt["output_tokens"]
    assert attempt["cost_nanousd"] == TOKEN_NANOUSD["m1"] * tokens


@pytest.mark.parametrize(
    "case", [case for case in all_cases() if case.fault.stops and case.candidates == 1], ids=str
)
def test_the_providers_verdict_on_the_caller_reaches_the_caller(stand, case):
    assert stand.seen[str(case)].reply.json["error"]["message"]


@pytest.mark.parametrize(
    "case",
    [c for c in all_cases() if c.fault.status > 428 and c.when != "after" and not c.last_is_well],
    ids=str,
)
def test_what_the_provider_said_of_its_own_trouble_stays_here(stand, case):
    reply = stand.seen[str(case)].reply
    assert b"simulated" not in reply.body
    if case.fault.name == "429":
        assert int(reply.headers["retry-after"]) >= 1

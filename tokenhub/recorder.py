"""The one sink: what happened to a request goes in here once, and everything else is fed from it.

`record` totals the attempts, appends to the journal (from then on it cannot be lost) and counts on
the board. The row it writes is the request log's row, column for column, so that the ingester has
nothing left to compute. Knows nothing of HTTP and never touches the database.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from tokenhub.board import Board
from tokenhub.budgets import Account
from tokenhub.domain import Attempt, Model, Outcome, Policy, Usage
from tokenhub.journal import END, OPENING, Journal
from tokenhub.tracing import Tracer

TEXT_MAX = 200
"""Characters kept of any text that came from outside, so that a record always fits its room."""

CLIENT_IP_MAX = 64
"""Addresses are shorter; only an IPv6 zone, which a proxy passes on, can make one this long."""

SKIPS_MAX = 16
SKIPS_BYTES_MAX = 1024
"""Of their JSON text, which the record's own JSON may double."""

CANDIDATES_MAX = 8
NAMES_CHARS_MAX = 800
"""Of all candidates, and of each list of a policy, that are written down."""

INTEGER_MAX = 2**63 - 1  # what a database column holds

_CONTROLS = re.compile(r"[\0-\x1f\x7f]")


class Recorder:
    """Turns outcomes into journal records and board counters.

    Args:
        models: all there are now, by id: what was left out is counted by provider.
        tracer: None = nothing is traced.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        board: Board,
        models: Callable[[], Mapping[str, Model]] = dict,
        tracer: Tracer | None = None,
    ) -> None:
        self._journal = journal
        self._board = board
        self._models = models
        self._tracer = tracer

    def admit(self) -> None:
        """Make sure that the request's record will fit; pair with `record` or `abandon`.

        Raises:
            Unavailable: `journal_full`.
        """
        self._journal.admit()
        self._board.enter()

    def make_room(self) -> None:
        """Make sure that another call's attempts will fit into the request's record as well; pair
        with `free_room`.

        Raises:
            Unavailable: `journal_full`.
        """
        self._journal.admit()

    def free_room(self) -> None:
        """What `make_room` has set aside is not needed any more."""
        self._journal.release()

    def abandon(self) -> None:
        """The request ended before its key was accepted: it gets no row."""
        self._journal.release()
        self._board.leave()

    def open(
        self,
        outcome: Outcome,
        cost_nanousd: int | None,
        *,
        accounts: Sequence[Account] = (),
        reserved_nanousd: int = 0,
    ) -> None:
        """Write down that a request has begun, as the row it becomes if nobody ends it. The last
        opening of a request counts.

        Args:
            cost_nanousd: what it is expected to cost.
            accounts: where money was set aside for it, so much in each.
        """
        row = log_row(outcome)
        row[ENDING] = "interrupted"
        row[COST] = cost_nanousd and min(cost_nanousd, INTEGER_MAX)
        held = list(map(list, accounts))
        self._journal.append(OPENING, payload_of(row, [], reserved_nanousd, held))

    def record(
        self, outcome: Outcome, *, was_opened: bool = False, accounts: Sequence[Account] = ()
    ) -> None:
        """Write down how a request ended. Exactly once for each admitted request.

        Args:
            accounts: whose money was set aside for it; settle them after this.

        Raises:
            OSError: the disk failed, so the caller must not be answered as if all were well.
        """
        try:
            _total(outcome)
            attempts = [attempt_row(attempt) for attempt in outcome.attempts]
            held = list(map(list, accounts)) if accounts else []
            self._journal.append(END, payload_of(log_row(outcome), attempts, was_opened, held))
            counters, slot = self._board.counters, self._board.slot
            counters.count(outcome, slot)
            if outcome.skips:
                counters.count_skips(outcome.skips, self._models(), slot)
            if self._tracer is not None:
                self._tracer.take(outcome)
        finally:
            self.abandon()

    def note(self, kind: bytes, columns: Sequence[Any]) -> None:
        """Write down what is no request, such as what was said of an answer.

        Args:
            kind: the journal's.
            columns: of its row, as the ingester takes them.

        Raises:
            Unavailable: `journal_full`.
            OSError: the disk failed.
        """
        self._journal.admit()
        try:
            self._journal.append(kind, orjson.dumps(columns))
        finally:
            self._journal.release()


def payload_of(
    row: list[Any], attempts: list[list[Any]], third: bool | int, held: list[list[Any]]
) -> bytes:
    """A request's record: a line of JSON, and its decision as another one, which whoever carries it
    into the database need not understand.

    Args:
        row: as `log_row` has it.
        attempts: as `attempt_row` has them.
        third: of an end, whether the request had been opened; of an opening, what was set aside.
        held: the accounts where money was.
    """
    return b"\n".join((orjson.dumps([row[:-1], attempts, third, held]), row[-1]))


def log_row(outcome: Outcome) -> list[Any]:
    """The outcome in the order of `store.LOG_COLUMNS`; the decision, its last, in UTF-8."""
    usage = outcome.usage
    return [
        outcome.request_id,
        outcome.started_at,
        outcome.key_id,
        outcome.endpoint,
        outcome.mode,
        outcome.stream,
        outcome.ending,
        outcome.status,
        outcome.error_class,
        _clip(outcome.requested_model),
        _clip(outcome.alias_from),
        outcome.model_id,
        outcome.provider_id,
        outcome.reason,
        outcome.snapshot_version,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.is_estimate,
        outcome.cost_nanousd,
        outcome.price_version,
        outcome.latency_ms,
        outcome.ttft_ms,
        outcome.overhead_us,
        outcome.estimated_input_tokens,
        outcome.response_bytes,
        len(outcome.attempts),
        _clip(outcome.client_ip, CLIENT_IP_MAX),
        _clip(outcome.client_request_id),
        _skips_text(outcome),
        outcome.team_id,
        outcome.policy.max_latency_ms if outcome.policy else 0,
        outcome.trace_id,
        orjson.dumps(_decision(outcome)),
    ]


# Where others look into a row.
STARTED_AT, KEY_ID, ENDPOINT, MODE = 1, 2, 3, 4
ENDING, ERROR_CLASS, ALIAS_FROM = 6, 8, 10
MODEL_ID, PROVIDER_ID = 11, 12
INPUT_TOKENS, OUTPUT_TOKENS = 15, 16
TOKEN_KINDS = 5
"""Input, output, read from and written to the cache, thought: one after the other."""
COST = 21
LATENCY_MS, TTFT_MS, OVERHEAD_US = 23, 24, 25
TEAM_ID = 32
SUMMED_BY = (
    MODEL_ID, PROVIDER_ID, KEY_ID, TEAM_ID, MODE, ENDPOINT, ENDING, ERROR_CLASS, ALIAS_FROM,
)  # fmt: skip
"""What sums of requests are kept apart by, in the order of `sums_tables.REQUESTS.key`."""


def attempt_row(attempt: Attempt) -> list[Any]:
    """The attempt in the order of `store.ATTEMPT_COLUMNS`."""
    usage = attempt.usage
    return [
        attempt.model_id,
        attempt.provider_id,
        attempt.started_ms,
        attempt.duration_ms,
        attempt.ttft_ms,
        attempt.status,
        attempt.error_class,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.is_estimate,
        attempt.cost_nanousd,
        attempt.price_version,
        attempt.reason,
        attempt.next_step,
        attempt.response_bytes,
    ]


# Where others look into an attempt's row.
STARTED_MS, DURATION_MS, TTFT_OF_ATTEMPT_MS, ERROR_CLASS_OF_ATTEMPT = 2, 3, 4, 6
INPUT_OF_ATTEMPT, COST_OF_ATTEMPT, REASON_OF_ATTEMPT = 7, 13, 15


def _total(outcome: Outcome) -> None:
    """The request used and cost what its attempts used and cost, losers included."""
    attempts = outcome.attempts
    if len(attempts) == 1:
        outcome.usage = attempts[0].usage
        outcome.cost_nanousd = attempts[0].cost_nanousd
        outcome.price_version = attempts[0].price_version
        return
    costs = [attempt.cost_nanousd for attempt in attempts]
    known = [cost for cost in costs if cost is not None]
    outcome.cost_nanousd = sum(known) if len(known) == len(costs) else None
    if attempts:
        outcome.usage = _sum_usage([attempt.usage for attempt in attempts])
        outcome.price_version = attempts[-1].price_version


def _sum_usage(usages: list[Usage]) -> Usage:
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cache_read_tokens=sum(usage.cache_read_tokens for usage in usages),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        is_estimate=any(usage.is_estimate for usage in usages),
    )


def _clip(text: str, chars_max: int = TEXT_MAX) -> str:
    """Text from outside, short enough for the record and free of control characters: Postgres
    refuses NUL, and in JSON each is six bytes."""
    text = text[:chars_max]
    return text if text.isprintable() else _CONTROLS.sub("\ufffd", text)


def _skips_text(outcome: Outcome) -> str:
    if not outcome.skips:
        return "{}"
    kept = list(outcome.skips.items())[:SKIPS_MAX]
    while True:
        text = orjson.dumps({_clip(model_id): reason for model_id, reason in kept}).decode()
        if len(text) <= SKIPS_BYTES_MAX:
            return text
        kept.pop()


def _decision(outcome: Outcome) -> dict[str, Any]:
    """Why it went where it went: the best candidates as [model, provider, score, propensity,
    expected cost], how many there were, how many were left out for what, and the policy."""
    policy = outcome.policy
    if policy is None:
        return {}
    best = outcome.candidates[:CANDIDATES_MAX]
    while sum([len(each[0].id) + len(each[0].provider_id) for each in best]) > NAMES_CHARS_MAX:
        best = best[:-1]
    said: dict[str, Any] = {
        "candidates": [
            (model.id, model.provider_id, score, propensity, cost)
            for model, score, propensity, cost, _ in best
        ],
        "candidate_count": len(outcome.candidates),
        "policy": _policy_of(policy),
    }
    if outcome.skips:
        said["skip_counts"] = Counter(outcome.skips.values())
    if outcome.policy_from:
        said["policy_from"] = outcome.policy_from
    return said


def _policy_of(policy: Policy) -> dict[str, Any]:
    """What is not as it is by default, and the limits."""
    found: dict[str, Any] = {
        "mode": policy.mode,
        "max_budget_nanousd": policy.max_budget_nanousd,
        "max_latency_ms": policy.max_latency_ms,
    }
    if policy.budget_is_hard or policy.latency_is_hard:
        found["hard"] = [policy.budget_is_hard, policy.latency_is_hard]
    if policy.min_weight:
        found["min_weight"] = policy.min_weight
    if policy.tags:
        found["tags"] = _shown(sorted(policy.tags))
    if policy.fallbacks is not None:
        found["fallbacks"] = _shown(policy.fallbacks)
    if policy.exclude:
        found["exclude"] = _shown(sorted(policy.exclude))
    return found


def _shown(names: Sequence[str]) -> list[str]:
    """The first of them, as many as there is room for."""
    found = [_clip(name) for name in names[:CANDIDATES_MAX]]
    while sum(map(len, found)) > NAMES_CHARS_MAX:
        found.pop()
    return found

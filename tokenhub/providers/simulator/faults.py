"""How the simulator fails, on demand; see docs/simulator.md for the list of faults.

A fault says when and how; what an error looks like is the dialect's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tokenhub.providers.simulator.client import CHUNKED, LAST_CHUNK, Client, HangUp, chunk, head
from tokenhub.providers.simulator.dialect import Answer, Dialect

HUGE_BYTES = 256 << 20
CUT_CHUNKS = 3
FOREVER_MS = 3_600_000
EVENT_STREAM = "text/event-stream; charset=utf-8"
ERRORS = ("context", "policy", "quota")
BEFORE = ("slow", "hang", "drop", "redirect", "content-type", "huge")
WITHIN = ("cut", "silent-after", "error-frame", "error-after-start", "malformed")
OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
RANDOM = "random"
OVERFLOW = "overflow"
TRANSIENT = ("429", "500", "503", "529", "drop", "cut", "hang-500", "malformed", "error-frame-2")
"""What `random` draws from."""


@dataclass(slots=True)
class Fault:
    """What shall go wrong: `slow-200` is named slow and numbered 200.

    Args:
        second: the other number of `overflow-<context>-<input>`.
        times: how often; 0 is always.
        retry_after_secs: sent with an error status.
    """

    name: str
    number: int = 0
    second: int = 0
    times: int = 0
    retry_after_secs: float | None = None


def parse(text: str) -> Fault:
    """Read a fault as written in a model name, a header or a control request.

    Raises:
        ValueError: there is no such fault.
    """
    if text in ERRORS or re.fullmatch("[45][0-9][0-9]", text):
        return Fault(text)
    if found := re.fullmatch(rf"{OVERFLOW}-(\d{{1,8}})-(\d{{1,8}})", text):
        return Fault(OVERFLOW, int(found[1]), int(found[2]))
    found = re.fullmatch(r"([a-z-]+?)(?:-(\d{1,6}))?", text)
    if found is None or found[1] not in (*BEFORE, *WITHIN, RANDOM):
        raise ValueError(f"unknown fault {text[:40]!r}")
    return Fault(found[1], int(found[2] or 0))


def fail_before(client: Client, fault: Fault, dialect: Dialect, body: dict[str, Any]) -> bool:
    """Fail instead of answering; False leaves the answer to be given.

    Raises:
        Refused: the fault is an error answer.
        Gone, HangUp: the connection is over.
    """
    if fault.name in WITHIN:
        return False
    match fault.name:
        case "slow":
            client.pause(fault.number)
        case "hang":
            client.pause(fault.number or FOREVER_MS)
            raise HangUp
        case "drop":
            raise HangUp
        case "overflow":
            _overflow(fault, dialect, body)
        case "redirect" | "content-type" | "huge":
            _mislead(client, fault)
            return True
        case _:
            _refuse(fault, dialect)
    return False


def _mislead(client: Client, fault: Fault) -> None:
    """Answer with what no provider would."""
    match fault.name:
        case "redirect":
            client.answer(302, b"", extra="Location: /v1/chat/completions\r\n")
        case "content-type":
            client.answer(200, b"<html><body>Not a model.</body></html>", "text/html")
        case _:
            _send_huge(client)


def _send_huge(client: Client) -> None:
    client.send(head(200, "application/json", CHUNKED))
    for _ in range(HUGE_BYTES >> 20):
        client.send_chunk(b" " * (1 << 20))
    client.send(LAST_CHUNK)


def _overflow(fault: Fault, dialect: Dialect, body: dict[str, Any]) -> None:
    context_tokens, input_tokens = fault.number, fault.second
    if input_tokens > context_tokens:
        raise dialect.overflow(context_tokens, input_tokens, 0)
    asked_tokens = next((body[name] for name in OUTPUT_LIMITS if body.get(name)), 0)
    if input_tokens + asked_tokens > context_tokens:
        raise dialect.overflow(context_tokens, input_tokens, asked_tokens)


def _refuse(fault: Fault, dialect: Dialect) -> None:
    refused = dialect.refusal(fault.name)
    refused.retry_after_secs = fault.retry_after_secs
    if fault.retry_after_secs is None and fault.name == "429":
        refused.retry_after_secs = 1
    raise refused


def send_whole(client: Client, answer: Answer, fault: Fault | None, dialect: Dialect) -> None:
    """Answer in one piece, or begin to."""
    body = answer.whole
    match fault.name if fault else "":
        case "cut" | "silent-after":
            fields = f"Content-Length: {len(body)}\r\n{dialect.extra}"
            whole = head(200, "application/json", fields) + body
            client.send(whole[: -len(body) // 2])
            if fault is not None and fault.name == "silent-after":
                client.pause(FOREVER_MS)
            raise HangUp
        case "malformed":
            body = body[: len(body) // 2]
        case "error-frame":
            body = dialect.error(dialect.refusal("500"))
        case "error-after-start":
            body = dialect.error(dialect.refusal("529"))
    client.answer(200, body, extra=dialect.extra)


def send_stream(client: Client, answer: Answer, fault: Fault | None, dialect: Dialect) -> None:
    """Answer as server-sent events, or begin to; one write when there is no pause between them."""
    pending = head(200, EVENT_STREAM, CHUNKED + dialect.extra)
    if fault is not None and fault.name == "error-after-start":
        failed = dialect.error_event(dialect.refusal("529"))
        client.send(pending + chunk(answer.opening) + chunk(failed) + LAST_CHUNK)
        return
    for number, event in enumerate(answer.events):
        if fault is not None and number == _last_chunk(fault):
            _fail_within(client, fault, dialect, pending)
            return
        if number and answer.interval_ms:
            client.send(pending)
            pending = b""
            client.pause(answer.interval_ms)
        pending += chunk(event)
    client.send(pending + LAST_CHUNK)


def _last_chunk(fault: Fault) -> int:
    """Before which chunk it fails; -1: before none."""
    if fault.name not in WITHIN:
        return -1
    return CUT_CHUNKS if fault.name == "cut" else fault.number


def _fail_within(client: Client, fault: Fault, dialect: Dialect, pending: bytes) -> None:
    match fault.name:
        case "cut":
            client.send(pending)
            raise HangUp
        case "silent-after":
            client.send(pending)
            client.pause(FOREVER_MS)
            raise HangUp
        case "malformed":
            client.send(pending + chunk(dialect.broken_event) + LAST_CHUNK)
        case _:
            event = dialect.error_event(dialect.refusal("500"))
            client.send(pending + chunk(event) + LAST_CHUNK)

"""How the simulator fails, on demand; see the package for the list of faults."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from tokenhub.providers.simulator.answers import Chat
from tokenhub.providers.simulator.client import CHUNKED, LAST_CHUNK, Client, HangUp, chunk, head

HUGE_BYTES = 256 << 20
CUT_CHUNKS = 3
FOREVER_MS = 3_600_000
EVENT_STREAM = "text/event-stream; charset=utf-8"
ERRORS = {
    "400": (400, "invalid_request_error", None),
    "401": (401, "invalid_request_error", "invalid_api_key"),
    "403": (403, "permission_error", None),
    "404": (404, "invalid_request_error", "model_not_found"),
    "429": (429, "requests", "rate_limit_exceeded"),
    "529": (529, "overloaded_error", None),
    "context": (400, "invalid_request_error", "context_length_exceeded"),
    "policy": (400, "invalid_request_error", "content_policy_violation"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
}
BEFORE = ("slow", "hang", "drop", "redirect", "content-type", "huge")
WITHIN = ("cut", "silent-after", "error-frame", "malformed")


@dataclass(slots=True)
class Fault:
    """What shall go wrong: `slow-200` is named slow and numbered 200.

    Args:
        times: how often; 0 is always.
        retry_after_secs: sent with an error status.
    """

    name: str
    number: int = 0
    times: int = 0
    retry_after_secs: float | None = None


def parse(text: str) -> Fault:
    """Read a fault as written in a model name, a header or a control request.

    Raises:
        ValueError: there is no such fault.
    """
    if text in ERRORS or re.fullmatch("[45][0-9][0-9]", text):
        return Fault(text)
    found = re.fullmatch(r"([a-z-]+?)(?:-(\d{1,6}))?", text)
    if found is None or found[1] not in BEFORE + WITHIN:
        raise ValueError(f"unknown fault {text[:40]!r}")
    return Fault(found[1], int(found[2] or 0))


def error_body(kind: str, code: str | None, message: str) -> bytes:
    """An error in OpenAI's envelope."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return orjson.dumps({"error": error})


def fail_before(client: Client, fault: Fault) -> bool:
    """Fail instead of answering; False leaves the answer to be given.

    Raises:
        Gone, HangUp: the connection is over.
    """
    if fault.name in WITHIN:
        return False
    match fault.name:
        case "slow":
            client.pause(fault.number)
            return False
        case "hang":
            client.pause(FOREVER_MS)
            raise HangUp
        case "drop":
            raise HangUp
        case "redirect":
            client.answer(302, b"", extra="Location: /v1/chat/completions\r\n")
        case "content-type":
            client.answer(200, b"<html><body>Not a model.</body></html>", "text/html")
        case "huge":
            _send_huge(client)
        case _:
            _refuse(client, fault)
    return True


def _send_huge(client: Client) -> None:
    client.send(head(200, "application/json", CHUNKED))
    for _ in range(HUGE_BYTES >> 20):
        client.send_chunk(b" " * (1 << 20))
    client.send(LAST_CHUNK)


def _refuse(client: Client, fault: Fault) -> None:
    if fault.name in ERRORS:
        status, kind, code = ERRORS[fault.name]
    else:
        status, code = int(fault.name), None
        kind = "invalid_request_error" if status < 500 else "server_error"
    wait_secs = fault.retry_after_secs
    if wait_secs is None and status == 429 and fault.name != "quota":
        wait_secs = 1
    extra = "" if wait_secs is None else f"Retry-After: {wait_secs:g}\r\n"
    client.answer(status, error_body(kind, code, f"simulated fault {fault.name}"), extra=extra)


def send_whole(client: Client, chat: Chat, fault: Fault | None) -> None:
    """Answer in one piece, or begin to."""
    body = chat.whole
    match fault.name if fault else "":
        case "cut" | "silent-after":
            whole = head(200, "application/json", f"Content-Length: {len(body)}\r\n") + body
            client.send(whole[: -len(body) // 2])
            if fault is not None and fault.name == "silent-after":
                client.pause(FOREVER_MS)
            raise HangUp
        case "malformed":
            client.answer(200, body[: len(body) // 2])
        case "error-frame":
            client.answer(200, error_body("server_error", None, "simulated fault"))
        case _:
            client.answer(200, body)


def send_stream(client: Client, chat: Chat, fault: Fault | None) -> None:
    """Answer as server-sent events, or begin to; one write when there is no pause between them."""
    pending = head(200, EVENT_STREAM, CHUNKED)
    for number, event in enumerate(chat.events):
        if fault is not None and number == _last_chunk(fault):
            _fail_within(client, fault, pending)
            return
        if number and chat.interval_ms:
            client.send(pending)
            pending = b""
            client.pause(chat.interval_ms)
        pending += chunk(event)
    client.send(pending + LAST_CHUNK)


def _last_chunk(fault: Fault) -> int:
    return CUT_CHUNKS if fault.name == "cut" else fault.number


def _fail_within(client: Client, fault: Fault, pending: bytes) -> None:
    match fault.name:
        case "cut":
            client.send(pending)
            raise HangUp
        case "silent-after":
            client.send(pending)
            client.pause(FOREVER_MS)
            raise HangUp
        case "malformed":
            client.send(pending + chunk(b'data: {"choices": [\n\n') + LAST_CHUNK)
        case _:
            event = b"data: %b\n\n" % error_body("server_error", None, "simulated fault")
            client.send(pending + chunk(event) + LAST_CHUNK)

"""What the doctor finds out about the way to the gateway: clock, buffering, whether it leaks."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tokenhub.config.findings import Finding
from tokenhub.ctl.client import Client, Failed, Refused, Unanswered

SKEW_WARN_SECS, SKEW_FAIL_SECS = 3.0, 60.0
STREAM_TOKENS = 64
FEED_SECS = 2
"""How long the event feed is listened to: it says something at once, and ends by itself."""
APART_SECS = FEED_SECS / 4
"""At least so long before its end its first words come, if nobody holds them back: a gateway
whose database is away takes a second to find them."""
END = b"[DONE]"
TAIL_BYTES = 64
PROXY_TIME = "look for a proxy that does not wait so long (nginx: proxy_read_timeout)"


@dataclass
class Heard:
    """A stream as it came.

    Attributes:
        pieces: how many.
        first_secs, last_secs: when the first and the last of them came.
        tail: the last bytes.
        encoding: how it was compressed; "" = not at all.
    """

    pieces: int = 0
    first_secs: float = 0.0
    last_secs: float = 0.0
    tail: bytes = b""
    encoding: str = ""


def clock(asking: Client) -> Finding:
    """How far the gateway's clock is from ours.

    By what it says itself: the date of an answer is that of a proxy, if one is on the way.
    """
    began = time.time()
    said = asking.get("overview", cmp="0")["as_of"]
    skew = (began + time.time()) / 2 - datetime.fromisoformat(said).timestamp()
    text = f"it is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} ours"
    todo = "have both machines keep their time (NTP)"
    if abs(skew) > SKEW_FAIL_SECS:
        return Finding("clock", "fail", text, todo)
    if abs(skew) > SKEW_WARN_SECS:
        return Finding("clock", "warn", text, todo)
    return Finding("clock", "ok", "as ours")


def canary(asking: Client) -> Finding:
    """Whether errors repeat secrets: a made-up one, and our own token where it opens nothing.

    Nothing is stored: the calls are refused. The made-up one is no token, so that no wrong token
    is counted against us.
    """
    planted = f"canary-{secrets.token_hex(12)}"
    token = asking.config.admin_token
    shown = []
    tries: tuple[tuple[str, str, dict[str, str], object], ...] = (
        ("GET", f"/admin/v1/no-such-path-{secrets.token_hex(4)}", {}, None),
        ("POST", "/admin/v1/routing/simulate", {}, {"mode": {"api_key": planted}}),
        ("GET", "/v1/no-such-path", {"X-Api-Key": planted}, None),
    )
    for method, path, headers, body in tries:
        try:
            response = asking.send(method, path, headers=headers, body=body)
        except Failed:
            continue
        said = response.text + "\n".join(f"{each}" for each in response.headers.values())
        if planted in said or (token and token in said):
            shown.append(path)
    if shown:
        text = f"errors repeat secrets: {', '.join(shown)}"
        return Finding("canary", "fail", text, "report it; look for a proxy that echoes requests")
    return Finding("canary", "ok", "errors repeat neither the admin token nor a planted secret")


def buffering(asking: Client) -> Finding:
    """Whether streams come through everything between us and the gateway as they are sent.

    Asked of the event feed, whose pace is known, and not of a model, which may be fast.
    """
    path = f"/admin/v1/events?secs={FEED_SECS}"
    heard = _listen(asking, "GET", path, enough_secs=FEED_SECS - APART_SECS)
    how = f"compressed on the way ({heard.encoding})" if heard.encoding else ""
    is_early = heard.first_secs < FEED_SECS - APART_SECS
    if heard.pieces and (is_early or heard.last_secs - heard.first_secs >= APART_SECS):
        if heard.pieces == 1 and b"event: closed" in heard.tail:
            text = "not known: the event feed has ended at once"
            return Finding("buffering", "warn", text, "see `tokenhubctl status`, and try again")
        text = "streams come as they are sent"
        return Finding("buffering", "ok", f"{text}, {how}" if how else text)
    if not heard.pieces:
        text = "not known: the event feed has said nothing"
        return Finding("buffering", "warn", text, "see the logs of the gateway and of the proxy")
    todo = (
        "have the proxy pass them on (nginx: proxy_buffering off, or do not ignore"
        " X-Accel-Buffering)"
    )
    if how:
        text = f"streams are {how}, and held back until they end"
        todo = f"switch compression of text/event-stream off, and {todo}"
        return Finding("buffering", "fail", text, todo)
    return Finding("buffering", "fail", "streams are held back on the way until they end", todo)


def streams(asking: Client) -> Finding:
    """Whether a model's answer can be streamed, to its end."""
    key = asking.config.api_key
    if not key:
        return Finding("streams", "warn", "not checked", "set TOKENHUB_API_KEY")
    body = {
        "model": "*", "stream": True, "max_tokens": STREAM_TOKENS,
        "messages": [{"role": "user", "content": "Count from one to twenty in words."}],
    }  # fmt: skip
    log = "see the gateway's log"
    try:
        heard = _listen(asking, "POST", "/v1/chat/completions", body=body, token=key)
    except Refused as error:
        if error.status < 500 and not error.proxy:
            raise
        return _failing(error, error.remedy or log)
    except Unanswered as error:
        return _failing(error, f"{PROXY_TIME}; {log}")
    if not heard.pieces:
        return Finding("streams", "fail", "the stream is empty", log)
    if END not in heard.tail:
        todo = f"{PROXY_TIME}; {log}"
        return Finding("streams", "fail", "the stream breaks off before its end", todo)
    told = f"{heard.pieces} pieces, the first after {heard.first_secs:.1f} s"
    return Finding("streams", "ok", told)


def _failing(error: Failed, todo: str) -> Finding:
    first = str(error).partition("\n")[0]
    return Finding("streams", "fail", f"a streamed request fails: {first}", todo)


def _listen(
    asking: Client, method: str, path: str, *, enough_secs: float = 0.0, **options: Any
) -> Heard:
    """Listen to a stream until it ends.

    Args:
        enough_secs: nothing more need be heard if the first piece has come before that.
    """
    began, heard = time.monotonic(), Heard()
    with asking.streaming(method, path, **options) as response:
        asking.check(response)
        heard.encoding = response.headers.get("Content-Encoding", "")
        while data := response.raw.read1(65_536, decode_content=True):
            heard.last_secs = time.monotonic() - began
            heard.first_secs = heard.first_secs or heard.last_secs
            heard.pieces += 1
            heard.tail = (heard.tail + data)[-TAIL_BYTES:]
            if heard.first_secs < enough_secs:
                break
    return heard

"""The command that follows what happens: a line for each event, across breaks of the connection."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from tokenhub.ctl.client import Client, Failed
from tokenhub.ctl.common import client
from tokenhub.ctl.filters import choosing
from tokenhub.ctl.show import as_json, event_line

RETRY_SECS_MIN, RETRY_SECS_MAX = 0.5, 15.0
LINE_BYTES_MAX = 1 << 20
QUIET = frozenset({"connected", "heartbeat", "closed"})
"""What is about the stream itself, and no loss."""
RATE_MAX = 10_000


@dataclass
class Frames:
    """Server-sent events out of bytes that may be cut anywhere.

    Attributes:
        last_id: of the last event that was complete.
    """

    last_id: str = ""
    _rest: bytes = b""
    _fields: dict[str, str] = field(default_factory=dict)

    def feed(self, data: bytes) -> Iterator[dict[str, str]]:
        """The events that are complete now: `event`, `data`, `id`."""
        self._rest += data
        if len(self._rest) > LINE_BYTES_MAX:
            raise Failed("the gateway's events cannot be read: a line has no end")
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            found = self._take(line.rstrip(b"\r").decode("utf-8", "replace"))
            if found is not None:
                yield found

    def _take(self, line: str) -> dict[str, str] | None:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in self._fields:
                value = f"{self._fields['data']}\n{value}"
            if name:
                self._fields[name] = value
            return None
        found, self._fields = self._fields, {}
        self.last_id = found.get("id", self.last_id)
        return found if "data" in found else None


@click.command("events")
@click.option("--type", "types", multiple=True, metavar="TEXT", help="Of these types only.")
@choosing("key", "model", "provider", "outcome", is_once=True)
@click.option(
    "--rate-max",
    type=click.IntRange(1, RATE_MAX),
    metavar="N",
    help="No more than so many successes a second.",
)
@click.option("--all", "with_quiet", is_flag=True, help="Heartbeats and connections too.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many.")
@click.option("--json", "is_json", is_flag=True, help="A line of JSON for each.")
def events(
    types: tuple[str, ...], with_quiet: bool, *, limit: int | None, is_json: bool, **chosen: object
) -> None:
    """Follow what happens, until Ctrl-C; what a break has hidden comes after it."""
    wanted = ",".join(types)
    hidden = frozenset() if with_quiet else QUIET.difference(wanted.split(","))
    count = 0
    for event in follow(client(), {"types": wanted, **chosen}):
        if event.get("type") in hidden:
            continue
        click.echo(as_json(event, indent=None) if is_json else event_line(event))
        sys.stdout.flush()
        count += 1
        if count == limit:
            return


def follow(asking: Client, query: dict[str, object]) -> Iterator[dict[str, Any]]:
    """All events from now on; after a break those that were missed come first.

    Raises:
        Failed: the first connection fails, or the gateway refuses.
    """
    frames, wait_secs, was_up = Frames(), RETRY_SECS_MIN, False
    while True:
        try:
            for event in _read(asking, query, frames):
                was_up, wait_secs = True, RETRY_SECS_MIN
                yield event
        except Failed as error:
            if not was_up or not error.is_passing:
                raise
        frames = Frames(frames.last_id)
        time.sleep(wait_secs)
        wait_secs = min(2 * wait_secs, RETRY_SECS_MAX)


def _read(asking: Client, query: dict[str, object], frames: Frames) -> Iterator[dict[str, Any]]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    if frames.last_id:
        headers["Last-Event-ID"] = frames.last_id
    with asking.streaming("GET", "/admin/v1/events", query=query, headers=headers) as response:
        asking.check(response)
        while data := response.raw.read1(LINE_BYTES_MAX // 2):
            for frame in frames.feed(data):
                yield _event(frame)


def _event(frame: dict[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(frame["data"])
    except ValueError:
        found = {"text": frame["data"]}
    if not isinstance(found, dict):
        found = {"text": frame["data"]}
    event: dict[str, Any] = {"type": frame.get("event", "message"), **found}
    if frame.get("id"):
        event["id"] = frame["id"]
    return event


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [(events, ())]

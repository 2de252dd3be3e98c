"""What commands that look back can be asked for: filters, a page or all as a file.

Knows names of options and of the API's parameters, and no entity. What they may hold is the
gateway's business: it says what is wrong with them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from tokenhub.ctl.client import PAGE
from tokenhub.ctl.common import client
from tokenhub.ctl.show import clean

F = TypeVar("F", bound=Callable[..., Any])

ROWS_DEFAULT = 50
CHUNK_BYTES = 65_536

FLAGS = {"request_id": "--request"}
"""Where the option is not called as the API's parameter is."""

ONCE = frozenset(
    {"from", "to", "request_id", "window", "order", "step", "group", "stream", "min_latency_ms",
     "min_cost_usd", "min_attempts", "success", "token_bucket"}
)  # fmt: skip
"""What has one value; of the others each value is an option of its own."""

TEXTS = {
    "from": "RFC 3339, or unix time.",
    "to": "As --from; what is at that time is not in it.",
    "key": "Of the API key of this id.",
    "team": "Of the team of this id.",
    "host": "Of the host of this id.",
    "outcome": "answered, rescued, failed, cut, refused, client_closed or interrupted.",
    "endpoint": "Such as /v1/chat/completions.",
    "mode": "Such as cheap or normal.",
    "status": "Such as 429 or 5xx.",
    "stream": "true or false.",
    "success": "true or false.",
    "group": "One or more, with commas, of: model, provider, key, team, mode, endpoint, alias, "
    "outcome, error_class.",
    "window": "1m, 5m, 1h or 24h.",
    "order": "By what the largest come first: cost, requests, errors, error_rate, tokens, p50, "
    "p95, p99, ttft, attempts, failed_attempts.",
}

DIMENSIONS = (
    "model", "provider", "key", "team", "mode", "endpoint", "alias", "outcome", "error_class",
)  # fmt: skip
"""What statistics and usage are kept apart by."""


def choosing(*names: str, is_once: bool = False) -> Callable[[F], F]:
    """Options for parameters of the API, which the command's function gets by their names.

    Args:
        is_once: each has one value.
    """

    def add(function: F) -> F:
        for name in reversed(names):
            flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
            many = not is_once and name not in ONCE
            option = click.option(
                flag, name, multiple=many, metavar="TEXT", help=TEXTS.get(name, ""),
                default=() if many else "",
            )  # fmt: skip
            function = option(function)
        return function

    return add


def paging(function: F) -> F:
    """The options of a long list: a page of it, or all that match."""
    for option in (
        click.option("--jsonl", "form", flag_value="jsonl", help="All that match, as JSON lines."),
        click.option("--csv", "form", flag_value="csv", help="All that match, as CSV."),
        click.option(
            "--cursor", default="", metavar="TEXT", help="Go on where another page has ended."
        ),
        click.option(
            "--limit", type=click.IntRange(1, PAGE), metavar="N",
            help=f"Rows; {ROWS_DEFAULT} if nothing is said.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def find_page(path: str, asked: dict[str, Any]) -> Any:
    """A page of a list, or None: all of it was written to standard output as it came.

    Args:
        asked: what `choosing` and `paging` have read.

    Raises:
        click.UsageError: an export of a part.
    """
    form, limit = asked.pop("form"), asked.pop("limit")
    if form is None:
        return client().get(path, **asked, limit=limit or ROWS_DEFAULT)
    if limit is not None:
        raise click.UsageError("an export has all that match: give no --limit")
    export(path, {**asked, "format": form})
    return None


def export(path: str, query: dict[str, Any]) -> None:
    """Pass an export on, piece by piece.

    Raises:
        click.UsageError: it is to be watched.
    """
    if click.get_current_context().params.get("watch") is not None:
        raise click.UsageError("an export cannot be watched")
    asking = client()
    with asking.streaming("GET", f"/admin/v1/{path}", query=query) as response:
        asking.check(response)
        for piece in response.iter_content(CHUNK_BYTES):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def more(found: dict[str, Any]) -> list[str]:
    """How the next page is had, if there is one."""
    cursor = found.get("next_cursor")
    return ["", f"More: --cursor {clean(cursor)}"] if cursor else []

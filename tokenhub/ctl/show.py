"""What people read: the original's formats of values, tables, and text that is safe to show.

Whatever the gateway stores may have been written by somebody else: nothing of it reaches a
terminal as a control sequence. Pure but for `table`'s width, which is the reader's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

NOTHING = "-"
DIGITS = 4
CENTS_MIN = 0.0001


def clean(value: object) -> str:
    """A value on one line, every character that is not plain to see escaped."""
    return "".join(each if each.isprintable() else _escape(each) for each in str(value))


def clean_lines(value: str) -> str:
    """Text of several lines, each of them clean."""
    return "\n".join(clean(line) for line in value.split("\n"))


def as_json(value: object, *, indent: int | None = 2) -> str:
    """JSON for people and machines; the same value, whatever is in its strings."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(each if each.isprintable() or each == "\n" else _escape16(each) for each in text)


def cell(value: object) -> str:
    """A value of a table: `-` for what is missing."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(clean, value)) or NOTHING
    return clean(value)


def cost(usd: object) -> str:
    """Dollars, to more digits where four would show nothing."""
    if not isinstance(usd, int | float):
        return NOTHING
    if usd == 0:
        return "free"
    return f"${usd:.{DIGITS}f}" if abs(usd) >= CENTS_MIN else f"${usd:.9f}".rstrip("0")


def money(usd: object) -> str:
    """Dollars of a budget, where nothing is not free."""
    return "$0.0000" if usd == 0 else cost(usd)


def price(usd_per_1k: object) -> str:
    """Dollars per 1,000 tokens, exactly."""
    if not isinstance(usd_per_1k, int | float):
        return NOTHING
    whole, _, digits = f"{usd_per_1k:.12f}".rstrip("0").partition(".")
    return f"{whole}.{digits:0<{DIGITS}}"


def duration(ms: object) -> str:
    """Milliseconds, or seconds from 1,000 on."""
    if not isinstance(ms, int | float):
        return NOTHING
    return f"{ms:.0f}ms" if ms < 1000 else f"{ms / 1000:.1f}s"


def share(part: object) -> str:
    """A share of 1 as percent."""
    return f"{part * 100:.1f}%" if isinstance(part, int | float) else NOTHING


def number(value: object) -> str:
    """A number to as many digits as say something."""
    return f"{value:.4g}" if isinstance(value, float) else cell(value)


def moment(text: object) -> str:
    """A time of the API as local time."""
    if not isinstance(text, str) or not text:
        return NOTHING
    try:
        found = datetime.fromisoformat(text)
        return f"{found.astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return clean(text)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Columns as wide as what is in them; values that are strings already are shown as they are."""
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for head in heads:
        found.add_column(Text(head), overflow="fold")
    for row in rows:
        found.add_row(*(Text(cell(each)) for each in row))
    return found


def pairs(values: Iterable[tuple[str, object]]) -> str:
    """`Name: value` lines, aligned."""
    found = [(f"{name}:", cell(value)) for name, value in values]
    width = max((len(name) for name, _ in found), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in found)


def short(value: object, chars: int) -> str:
    """The beginning of a text."""
    text = cell(value)
    return text if len(text) <= chars else text[: chars - 1] + "…"


def event_line(event: dict[str, Any]) -> str:
    """An event on one line: local time, type, then its facts by name."""
    known = {"id", "type", "timestamp"}
    when = moment(event.get("timestamp"))[-8:]
    facts = [
        f"{_EVENT_NAMES.get(name, name)}={_fact(name, value)}"
        for name, value in event.items()
        if name not in known and value not in (None, "", [], {})
    ]
    return " ".join([f"[{clean(when)}]", clean(event.get("type", NOTHING)), *facts])


_EVENT_NAMES = {
    "model_id": "model", "provider_id": "provider", "latency_ms": "latency", "cost_usd": "cost",
    "error_msg": "error",
}  # fmt: skip


def _fact(name: str, value: object) -> str:
    if name == "latency_ms":
        return duration(value)
    if name == "cost_usd":
        return cost(value)
    shown = clean(value) if isinstance(value, str) else as_json(value, indent=None)
    return f'"{shown}"' if " " in shown else shown


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _escape16(character: str) -> str:
    """As JSON escapes it: by UTF-16 units."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))

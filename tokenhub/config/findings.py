"""What a check has found, and how it is told: the words that both doctors share.

Checks nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One check's result.

    Attributes:
        check: its name.
        text: what was found, on a line.
        to_do: what to do about it; "" if nothing.
    """

    check: str
    verdict: Verdict
    text: str
    to_do: str = ""


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether something does not work."""
    return any(each.verdict == "fail" for each in findings)


def render_findings(findings: Sequence[Finding], *, is_json: bool) -> str:
    """A line for each, with what to do about it, or all of them as JSON."""
    if is_json:
        rows = [asdict(each) for each in findings]
        return json.dumps({"ok": not has_failed(findings), "checks": rows}, indent=2)
    width = max((len(each.check) for each in findings), default=0)
    return "\n".join(
        f"{each.verdict:<4}  {each.check:<{width}}  {_safe(each.text)}"
        + (f"; {_safe(each.to_do)}" if each.to_do else "")
        for each in findings
    )


def _safe(text: str) -> str:
    """On one line, without control characters: names in it are other people's."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)

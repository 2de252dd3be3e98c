"""What no log line may show, by its name and by its looks.

A name speaks of a secret if it holds or ends in one of a few words; ids and counts that only
mention one stay readable, or a line about a limit could not say whose. A text is searched for
whatever looks like a secret, wherever it stands. Pure, and called only for lines that are written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import re2

REDACTED = "[REDACTED]"

DEPTH_MAX = 8
"""Deeper values are shown as text: whoever logs a loop must not hang us."""

_ALWAYS = re.compile(r"passw|passphrase|secret|authorization|cookie|credential")
_LAST_WORD = re.compile(r"(?:^|_)(?:api)?(?:keys?|tokens?|dsn|body|req_body)$")
_HARMLESS = re.compile(
    r"(?:_ids?|_file|_files|_prefix|_names?|_counts?|_at|_ms|_secs|_bytes|_max|_class|_kind)$"
)

_LOOKS = re.compile(
    # Ours, and those of providers and others whose keys have a beginning of their own.
    r"\btokenhub_(?:admin_)?[0-9A-Za-z_-]{16,}"
    r"|\b(?:sk|rk|pk)-[0-9A-Za-z_-]{8,}"
    r"|\b(?:gsk|xai|hf|r8|nvapi|pplx|ghp|gho|ghs|fw|tgp|csk|vck)[_-][0-9A-Za-z_-]{16,}"
    r"|\bgithub_pat_[0-9A-Za-z_]{16,}"
    r"|\bAIza[0-9A-Za-z_-]{16,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{12,}"
    r"|\bxox[a-z]-[0-9A-Za-z-]{8,}"
    r"|\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]*)?"
    # What stands behind a word that says so.
    r"|(?P<before>\b[Bb]earer[ \t]+|\bBEARER[ \t]+|\b[Bb]asic[ \t]+(?=[0-9A-Za-z+/=_-]{8})"
    r"|://[^\s/:@]*:(?=[^\s/@]+@)"
    r"|(?i:pass(?:word|wd|phrase)?|secret|token|api[_-]?key)['\"]?=['\"]?"
    r"|(?i:password|secret|token|api[_-]?key)['\"]:[ ]?['\"]"
    r"|(?i:x-api-key|api-key|authorization|set-cookie|cookie):[ \t]*(?![Bb]earer|[Bb]asic)"
    r")(?P<value>[^\s@'\"&,;]+)"
)


_SUSPECT = re2.compile(
    r"tokenhub_|[srp]k-|github_pat|AIza|AKIA|ASIA|xox|eyJ|://[^ ]*@"
    r"|(?:gsk|xai|hf|r8|nvapi|pplx|gh[pos]|fw|tgp|csk|vck)[_-]"
    r"|(?i:bearer|basic|cookie|authorization|pass(?:word|wd|phrase)?[\\'\"]*[=:])"
    r"|(?i:(?:secret|token|api[_-]?key)[\\'\"]*[=:])"
)
"""What must be in a text, or in the JSON of it, for `_LOOKS` to find anything there: that takes a
hundred microseconds for a line, and this one or two."""


def is_suspect(text: str) -> bool:
    """Whether it is worth while to look at a text, or at the JSON of one."""
    return _SUSPECT.search(text) is not None


def redact(value: Any, name: str = "", depth: int = 0) -> Any:
    """A value as it may be logged, fit for JSON.

    Args:
        name: what it is called, if it is.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return REDACTED if value and speaks_of_secret(name) else redact_text(value)
    if name and speaks_of_secret(name):
        return REDACTED
    if depth < DEPTH_MAX:
        if isinstance(value, Mapping):
            return {
                redact_text(str(key)): redact(each, str(key), depth + 1)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [redact(each, depth=depth + 1) for each in value]
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """A text without what looks like a secret."""
    if text.isascii() and not is_suspect(text):  # not all else can be put into UTF-8
        return text
    return _LOOKS.sub(_masked, text)


@lru_cache(maxsize=1000)
def speaks_of_secret(name: str) -> bool:
    """Whether what has this name is secret, whatever it looks like. Numbers never are."""
    if not name:
        return False
    plain = name.lower().replace("-", "_")
    if _HARMLESS.search(plain):
        return False
    return bool(_ALWAYS.search(plain) or _LAST_WORD.search(plain))


def _masked(found: re.Match[str]) -> str:
    return (found["before"] or "") + REDACTED

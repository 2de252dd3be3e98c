"""Regular expressions of JSON schemas, matched in time that grows with the text and no faster.

A caller writes the pattern and a model the text; with Python's `re` the two could hold up a worker
for hours. RE2 (https://github.com/google/re2) cannot be held up. The syntax is ECMA-262's, as JSON
Schema says, without what no such machine can do: back references and looking around. Knows no
schema.
"""

from __future__ import annotations

import re
from functools import lru_cache

import re2

PATTERN_CHARS_MAX = 1000
MEMORY_BYTES_MAX = 1 << 20

_CODE = re.compile(r"(\\\\)|\\u(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{4}))")
"""A code point as ECMA-262 writes it; the backslash that another one stands for is no beginning."""


class Pattern:
    """A pattern that is searched for in texts.

    Raises:
        ValueError: it is none, or one that we cannot match; the text says what is wrong.
    """

    def __init__(self, text: str) -> None:
        if len(text) > PATTERN_CHARS_MAX:
            raise ValueError(f"has more than {PATTERN_CHARS_MAX} characters")
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MEMORY_BYTES_MAX
        try:
            self._found = re2.compile(_CODE.sub(_as_re2, text), options)
        except (re2.error, UnicodeEncodeError) as error:
            raise ValueError(f"is not supported: {_words(error)}") from None

    def is_in(self, text: str) -> bool:
        """Whether it matches anywhere in a text."""
        return self._found.search(text) is not None


@lru_cache(maxsize=256)
def compiled(text: str) -> Pattern:
    """A pattern, made once; see Pattern."""
    return Pattern(text)


def _as_re2(found: re.Match[str]) -> str:
    return found[1] or rf"\x{{{found[2] or found[3]}}}"


def _words(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else "not Unicode"

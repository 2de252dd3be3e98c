"""Which version of a thing a change is meant for: `If-Match`, and the `ETag` that it repeats.

A version is the thing's revision, which each change of it counts up. Knows no entity.

https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1
"""

from __future__ import annotations

import re

from flask import Response, request

from tokenhub.errors import InvalidRequest, PreconditionFailed
from tokenhub.web.answers import answer

HEADER = "If-Match"
TAGS_MAX = 20

_TAGS = re.compile(r'(?:W/)?"([^"]*)"')
_LIST = re.compile(rf"{_TAGS.pattern}(?:[ \t]*,[ \t]*{_TAGS.pattern}){{0,{TAGS_MAX - 1}}}")


def check(revision: int | None) -> None:
    """Make sure that a change is meant for what there is, if it says what it is meant for.

    A weak tag is as good as a strong one: a proxy that compresses an answer makes it weak.

    Args:
        revision: of what there is; None = there is nothing.

    Raises:
        InvalidRequest: `If-Match` is neither `*` nor a list of tags.
        PreconditionFailed: it names others.
    """
    given: str | None = request.headers.get(HEADER)
    if given is None:
        return
    given = given.strip()
    if given == "*":
        is_meant = revision is not None
    elif _LIST.fullmatch(given):
        is_meant = revision is not None and str(revision) in _TAGS.findall(given)
    else:
        raise InvalidRequest(f'{HEADER} must be *, or a revision such as "7"', param=HEADER)
    if not is_meant:
        raise PreconditionFailed(
            "somebody else has changed this, or there is no such thing: look again",
            param=HEADER,
            details={"revision": revision},
        )


def refuse() -> None:
    """For what has no revisions: not to look at `If-Match` would break what it asks for.

    Raises:
        InvalidRequest: it is given.
    """
    if HEADER in request.headers:
        raise InvalidRequest(
            f"this has no revisions, so {HEADER} cannot be kept",
            code="unsupported_parameter",
            param=HEADER,
        )


def answer_of(payload: object, revision: int) -> Response:
    """An answer that says which revision it is about."""
    response = answer(payload)
    response.headers["ETag"] = f'"{revision}"'
    return response

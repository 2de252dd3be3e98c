"""`POST /v1/feedback`: what an answer was worth to whoever asked for it, by the request's id.

It is written into the journal and answered at once, so it may come before the row of its request.
Whose request it is shows when both are in the database; see `store.feedback`. Knows no table.
"""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, Response, request

from tokenhub import keys
from tokenhub.board.board import unix_ms
from tokenhub.errors import InvalidRequest
from tokenhub.journal import FEEDBACK
from tokenhub.services import Services
from tokenhub.web import access, forms, guards
from tokenhub.web.answers import answer

blueprint = Blueprint("feedback", __name__)

LABELS = {
    "good": 1.0,
    "thumbs_up": 1.0,
    "neutral": 0.5,
    "bad": 0.0,
    "thumbs_down": 0.0,
}
"""Words that are scores."""

LABEL_CHARS = 64

_REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


def _request_id(name: str, value: Any) -> str:
    """An id as we give them; whether there is such a request is not known yet."""
    found: str = forms.text()(name, value)
    if not _REQUEST_ID.fullmatch(found):
        raise InvalidRequest(f"{name} must be an X-Request-Id of ours", param=name)
    return found


FIELDS: dict[str, forms.Reader] = {
    "request_id": _request_id,
    "score": forms.number(0, 1),
    "label": forms.text(LABEL_CHARS),
}


@blueprint.post("/v1/feedback")
def give() -> Response:
    """Take what was said of an answer, from the key that asked for it or from an administrator."""
    hub, environ = guards.services(), request.environ
    bearer = guards.bearer_token(environ)
    is_by_page = not guards.token_of(environ) and access.COOKIE in request.cookies
    if is_by_page or (bearer and keys.digest_of(bearer) is None):
        guards.check_address(hub, environ)  # as all who come this way
        access.require_admin(hub)
        return _take(hub, "", access.current_admin().actor)
    return _of_key(hub)


def _of_key(hub: Services) -> Response:
    """It counts as one request of the key, and uses no tokens."""
    caller = guards.admit(hub, hub.catalog.current(), None)
    ticket = hub.limiter.admit(caller.key, caller.team)
    try:
        response = _take(hub, caller.key.id, f"key:{caller.key.id}")
    finally:
        if ticket is not None:
            ticket.release(0)
    if ticket is not None:
        response.headers.extend(ticket.headers())
    return response


def _take(hub: Services, key_id: str, actor: str) -> Response:
    """Read it, write it down, say so.

    Raises:
        InvalidRequest: a field is unknown, missing or wrong.
        BodyTooLarge, RequestTimeout: see `guards.read_body`.
        Unavailable: `journal_full`.
    """
    given = forms.read_fields(hub, FIELDS, required=("request_id",))
    label = given.get("label", "")
    said: list[Any] = [unix_ms(), given["request_id"], key_id, actor, _score(given), label]
    hub.recorder.note(FEEDBACK, said)
    return answer({"ok": True, "request_id": given["request_id"]}, 202)


def _score(given: dict[str, Any]) -> float:
    """The score that was given, or that of the label.

    Raises:
        InvalidRequest: there is neither.
    """
    if "score" in given:
        return float(given["score"])
    if not given.get("label"):
        raise InvalidRequest("score or label is required", code="missing_field", param="score")
    return LABELS[forms.one_of(*LABELS)("label", given["label"])]

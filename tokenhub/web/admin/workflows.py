"""Workflows of Temporal, which this gateway does not run: answers as the original's with it off."""

from __future__ import annotations

from flask import Blueprint, Response

from tokenhub.web import forms
from tokenhub.web.admin import asking
from tokenhub.web.answers import answer

routes = Blueprint("workflows", __name__)

LIMIT_MAX = 200
STATES = (
    "RUNNING", "COMPLETED", "FAILED", "CANCELED", "TERMINATED", "CONTINUED_AS_NEW", "TIMED_OUT",
)  # fmt: skip
OFF = {"temporal_enabled": False}


@routes.get("/workflows")
def list_all() -> Response:
    """There are none."""
    asking.read_query(
        {
            "limit": asking.one(asking.integer(1, LIMIT_MAX)),
            "status": asking.one(forms.one_of(*STATES)),
        }
    )
    return answer({"workflows": [], **OFF})


@routes.get("/workflows/<path:workflow_id>")
def get(workflow_id: str) -> Response:
    """There is none, whatever the id."""
    forms.path_id(workflow_id)
    forms.check_query()
    return answer(OFF)


@routes.get("/workflows/<path:workflow_id>/history")
def history(workflow_id: str) -> Response:
    """There is none, whatever the id."""
    forms.path_id(workflow_id)
    forms.check_query()
    return answer(OFF)

"""The native envelope of `POST /v1/chat`: a chat request, and beside it what is asked of us.

    {"request": {"messages": [...], "model_hint": "...", "parameters": {...}, ...},
     "policy": {...}, "output_format": {...}}

What is in `request` becomes a request in the chat dialect. Pure; knows no policy's words.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from tokenhub.dialects import openai
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest
from tokenhub.shaping import OutputFormat, read_format
from tokenhub.structured import Schema, read_schema

FIELDS = ("request", "policy", "output_format", "capabilities")
PLAN_FIELDS = (*FIELDS, "orchestration")
REQUEST_FIELDS = (
    "id", "messages", "model_hint", "estimated_input_tokens", "meta", "output_schema",
    "parameters", "stream",
)  # fmt: skip
OURS = ("messages", "model", "stream")
"""What `parameters` may not say a second time."""

ID_CHARS_MAX = 200
INPUT_TOKENS_MAX = 1_000_000_000
SHOWN_CHARS = 100


class Envelope(NamedTuple):
    """A native request, read.

    Args:
        request: in the chat dialect; its sticky key is the caller's own id of it.
        policy: the policy object as it was given, or None.
        schema: what the answer shall keep to, or None.
    """

    request: ChatRequest
    policy: Any
    output: OutputFormat
    schema: Schema | None


def read_envelope(raw: bytes) -> Envelope:
    """Parse and check a native request, once.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    return _envelope_of(openai.parse_object(raw), FIELDS)


def read_plan(raw: bytes) -> tuple[Envelope, Any]:
    """The same for a plan, with its `orchestration` as it was given; None = there is none.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    body = openai.parse_object(raw)
    return _envelope_of(body, PLAN_FIELDS), body.get("orchestration")


def _envelope_of(body: dict[str, Any], fields: Collection[str]) -> Envelope:
    _refuse_unknown(body, fields, "")
    # Of the original; it reads neither, and so nothing is asked of us here.
    _object(body, "capabilities", "capabilities")
    inner = body.get("request")
    if not isinstance(inner, dict):
        raise InvalidRequest("request is required and must be an object", param="request")
    output = read_format(body.get("output_format"))
    return Envelope(
        request=read_inner(inner),
        policy=body.get("policy"),
        output=output,
        schema=_schema_of(inner, output),
    )


def read_inner(inner: dict[str, Any]) -> ChatRequest:
    """The `request` of an envelope as a request in the chat dialect.

    Its `estimated_input_tokens` may only raise our own estimate: what a request is taken for must
    not be its caller's to lower (weak spot W30).

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    _refuse_unknown(inner, REQUEST_FIELDS, "request.")
    _object(inner, "meta", "request.meta")
    parameters = _object(inner, "parameters", "request.parameters")
    for name in OURS:
        if name in parameters and parameters[name] != inner.get(name):
            where = f"request.parameters.{name}"
            raise InvalidRequest(f"{where} does not belong there", param=where)
    body = {**parameters, "messages": inner.get("messages")}
    for name, ours in (("model_hint", "model"), ("stream", "stream")):
        if inner.get(name) is not None:
            body[ours] = inner[name]
    try:
        request = openai.request_of(body)
    except InvalidRequest as error:
        error.param = _path_of(error.param)
        raise
    request.input_tokens = max(request.input_tokens, _tokens(inner))
    request.sticky_key = _id(inner)
    return request


def _schema_of(inner: dict[str, Any], output: OutputFormat) -> Schema | None:
    """The schema of `request.output_schema`, or that of `output_format.schema`."""
    given = inner.get("output_schema")
    is_given = given is not None and given != ""
    if is_given and output.schema is not None:
        raise InvalidRequest(
            "there is a schema in request.output_schema already", param="output_format.schema"
        )
    if is_given:
        return read_schema(given, "request.output_schema")
    if output.schema is not None:
        return read_schema(output.schema, "output_format.schema")
    return None


def _refuse_unknown(body: dict[str, Any], fields: Collection[str], path: str) -> None:
    for name in body:
        if name not in fields:
            shown, known = path + name[:SHOWN_CHARS], ", ".join(fields)
            raise InvalidRequest(
                f"unknown field {shown!r}; known are: {known}", code="unknown_field", param=shown
            )


def _object(body: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{path} must be an object", param=path)
    return value or {}


def _path_of(param: str | None) -> str | None:
    """Where the field of a chat request stands in the envelope."""
    if param is None:
        return None
    if param.startswith(("messages", "stream")) and param != "stream_options":
        return f"request.{param}"
    return "request.model_hint" if param == "model" else f"request.parameters.{param}"


def _tokens(inner: dict[str, Any]) -> int:
    value = inner.get("estimated_input_tokens")
    if value is None:
        return 0
    path = "request.estimated_input_tokens"
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not 0 <= value <= INPUT_TOKENS_MAX:
        raise InvalidRequest(
            f"{path} must be a whole number from 0 to {INPUT_TOKENS_MAX}", param=path
        )
    return int(value)


def _id(inner: dict[str, Any]) -> str:
    value = inner.get("id")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > ID_CHARS_MAX:
        raise InvalidRequest(
            f"request.id must be a string of at most {ID_CHARS_MAX} characters", param="request.id"
        )
    return value

"""How a model is asked for an answer that keeps to a schema, and asked again when it does not.

Knows no provider: whoever asks is handed in, and counts and pays for each call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest, SchemaUnmet
from tokenhub.pricing import estimate_input_tokens
from tokenhub.shaping import find_json
from tokenhub.structured.checking import check
from tokenhub.structured.schema import Schema, read_schema

Completion = dict[str, Any]
Call = Callable[[ChatRequest], Completion]

SHOWN_CHARS_MAX = 100_000
"""How much of an answer its model is shown again."""
SCHEMA_PATH = "response_format.json_schema"

_INSTRUCTION = (
    "Answer with one JSON value that keeps to this JSON schema, and with nothing else: no code "
    "fence, no explanation.\n"
)
_AGAIN = (
    "Your answer does not keep to the JSON schema:\n{errors}\n"
    "Answer again: the whole JSON value, mended, and nothing else."
)
_ENDED = {
    "length": "$: the answer was cut off at its token limit",
    "content_filter": "$: the answer was cut off by the provider's filter",
}


def schema_of(request: ChatRequest) -> Schema | None:
    """The schema that a request in the chat dialect asks for in its `response_format`.

    Raises:
        InvalidRequest: it is no schema that we can check.
    """
    wanted = request.body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    described = wanted.get("json_schema")
    if not isinstance(described, dict) or described.get("schema") is None:
        return None
    if not isinstance(described["schema"], dict):
        raise InvalidRequest("a schema must be an object", param=f"{SCHEMA_PATH}.schema")
    return read_schema(described["schema"], f"{SCHEMA_PATH}.schema")


def with_schema(request: ChatRequest, schema: Schema) -> ChatRequest:
    """The request with the schema as its `response_format`, for a model that knows schemas."""
    described = {"name": schema.name, "schema": schema.value, "strict": schema.is_strict}
    wanted = {"type": "json_schema", "json_schema": described}
    body = {**request.body, "response_format": wanted}
    return replace(request, body=body, needs=request.needs | {"json"})


def with_instruction(request: ChatRequest, schema: Schema) -> ChatRequest:
    """The request with the schema in words, for a model that knows of none."""
    body = {name: value for name, value in request.body.items() if name != "response_format"}
    said = {"role": "system", "content": _INSTRUCTION + orjson.dumps(schema.value).decode()}
    return _with_messages(
        replace(request, body=body, needs=request.needs - {"json"}),
        [said, *body.get("messages", ())],
    )


def repair(request: ChatRequest, text: str, errors: Sequence[str]) -> ChatRequest:
    """The request that asks again: with the answer, and what is wrong with it."""
    listed = "\n".join(f"- {error}" for error in errors)
    turns = [
        {"role": "assistant", "content": text[:SHOWN_CHARS_MAX] or "(nothing)"},
        {"role": "user", "content": _AGAIN.format(errors=listed)},
    ]
    return _with_messages(request, [*request.body.get("messages", ()), *turns])


def answer_with_schema(
    call: Call, request: ChatRequest, schema: Schema, repairs: int
) -> Completion:
    """Ask until the answer keeps to the schema.

    What keeps to it within prose or a code fence is taken out. Where there are several choices, all
    must keep to it. A choice that calls tools, or refuses, is none that can. Who is asked again is
    shown its last answer only, so that prompts do not grow.

    Args:
        call: asks a model for a whole completion in the chat dialect; raises what it will.
        repairs: how often it is asked again, at most.

    Raises:
        SchemaUnmet: it never did; `details["errors"]` say why the last answer does not.
    """
    asked = request
    for left in range(repairs, -1, -1):
        completion, faulty, errors = _judge(call(asked), schema)
        if not errors:
            return completion
        if not left or faulty is None:
            raise unmet(errors)
        asked = repair(request, faulty, errors)
    raise AssertionError("unreachable")


def unmet(errors: Sequence[str]) -> SchemaUnmet:
    """The error that says that no answer keeps to the schema."""
    return SchemaUnmet(
        "the model's answer does not keep to the schema", details={"errors": list(errors)}
    )


def mend(text: str, schema: Schema) -> tuple[str, list[str]]:
    """A text, or the JSON in it if that keeps to the schema; and else what is wrong with it."""
    errors = check(text, schema)
    if not errors:
        return text, []
    inside = find_json(text)
    if inside is None or inside == text.strip():
        return text, errors
    errors_inside = check(inside, schema)
    return (text, errors_inside) if errors_inside else (inside, [])


def cut_off(reason: Any) -> str:
    """What is wrong with an answer that ended for this reason; "" = nothing by that alone."""
    return _ENDED.get(reason, "") if isinstance(reason, str) else ""


def _judge(completion: Completion, schema: Schema) -> tuple[Completion, str | None, list[str]]:
    """The completion with its JSON alone; the text of the choice that is faulty, or None where it
    would be so again; and what is wrong with it."""
    mended = []
    for choice in completion.get("choices") or ():
        text = _text_of(choice)
        if text is None:
            mended.append(choice)
            continue
        found, errors = mend(text, schema)
        ended = cut_off(choice.get("finish_reason"))
        if errors:
            return completion, None if ended else text, [ended] if ended else errors
        message = choice["message"]
        is_same = found == text
        mended.append(choice if is_same else {**choice, "message": {**message, "content": found}})
    return {**completion, "choices": mended}, None, []


def _text_of(choice: Any) -> str | None:
    """What a choice says, if it is to keep to the schema."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or message.get("refusal"):
        return None
    if message.get("tool_calls") or message.get("function_call"):
        return None
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _with_messages(request: ChatRequest, messages: list[Any]) -> ChatRequest:
    body = {**request.body, "messages": messages}
    return replace(request, body=body, input_tokens=estimate_input_tokens(body))

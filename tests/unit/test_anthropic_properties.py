"""Whatever the gateway accepts is either what Anthropic accepts, or refused in our own words."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.anthropic_kit import (
    ADAPTIVE_MODEL,
    BUDGET_MODEL,
    NEWEST_MODELS,
    check,
    written,
)
from tokenhub.dialects.anthropic.requests import DROPPED, REFUSED, TRANSLATED, to_messages
from tokenhub.dialects.openai import ROLES, read_request
from tokenhub.errors import InvalidRequest

MODELS = st.sampled_from([
    BUDGET_MODEL, ADAPTIVE_MODEL, *NEWEST_MODELS, "claude-3-5-haiku-latest", "claude-opus-4-8",
    "claude-sonnet-5", "claude-opus-5", "other",
])  # fmt: skip
SAYINGS = st.sampled_from(["", " ", "\n", "a", "b ", "é…", "call"])
IDS = st.sampled_from(["a", "b", "c.d", "c_d", "call_toolu_1"])
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(-3, 3),
              st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3),
                            st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


def often(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what makes sense, now and then anything at all."""
    return st.integers(0, 99).flatmap(lambda number: anything if number == 99 else likely)


MARKS = often(st.sampled_from([None, {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}]))
URLS = st.sampled_from(
    ["https://x.test/a", "data:image/png;base64,AA==", "data:image/jpg;base64,A"]
)
FILES = st.sampled_from(["data:application/pdf;base64,AA", "AA=="])
TEXTS = st.fixed_dictionaries(
    {"type": st.just("text"), "text": often(SAYINGS)}, optional={"cache_control": MARKS}
)
SHOWN = st.one_of(
    TEXTS,
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": often(
        st.fixed_dictionaries({"url": often(URLS)}, optional={"detail": often(SAYINGS)}))}),
    st.fixed_dictionaries({"type": st.just("file"), "file": often(st.fixed_dictionaries(
        {"file_data": often(FILES)}, optional={"filename": often(SAYINGS)}))}),
)  # fmt: skip
SAID = TEXTS | st.fixed_dictionaries({"type": st.just("refusal"), "refusal": often(SAYINGS)})
ARGUMENTS = st.sampled_from(["", "{}", '{"a": 1}', '{"a": 99999999999999999999}'])
CALLS = st.fixed_dictionaries({
    "id": often(IDS),
    "type": often(st.just("function")),
    "function": often(st.fixed_dictionaries(
        {"name": often(st.sampled_from(["f", "g"])), "arguments": often(ARGUMENTS)})),
})  # fmt: skip
THOUGHTS = st.fixed_dictionaries({
    "type": st.sampled_from(["thinking", "redacted_thinking"]),
    "thinking": often(SAYINGS), "signature": often(SAYINGS), "data": often(SAYINGS),
})  # fmt: skip


def messages(parts: st.SearchStrategy[Any], *roles: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "role": st.sampled_from(roles),
            "content": st.none() | SAYINGS | st.lists(often(parts), max_size=3),
        },
        optional={
            "cache_control": MARKS,
            "thinking_blocks": often(st.lists(often(THOUGHTS), max_size=2)),
            "reasoning_content": anything,
            "refusal": often(st.none() | SAYINGS),
        },
    )


ANSWERS = messages(SHOWN, "tool")
ASSISTANTS = messages(SAID, "assistant")
MESSAGES = st.one_of(messages(SHOWN, "user"), messages(TEXTS, "system", "developer"), ASSISTANTS)
STRAYS = messages(SHOWN | SAID, *sorted(ROLES))


@st.composite
def rounds(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Calls with their results: what chance alone would hardly ever hit."""
    calls = draw(st.lists(CALLS, min_size=1, max_size=3, unique_by=lambda call: repr(call["id"])))
    results = [{**draw(ANSWERS), "tool_call_id": call["id"]} for call in calls]
    return [{**draw(ASSISTANTS), "tool_calls": calls}, *draw(st.permutations(results))]


FUNCTIONS = st.fixed_dictionaries(
    {"name": often(st.sampled_from(["f", "g"]))},
    optional={"parameters": often(st.sampled_from([{}, {"type": "object"}, None])),
              "strict": often(st.booleans()), "description": often(SAYINGS)},
)  # fmt: skip
NAMED = st.fixed_dictionaries({
    "type": st.just("function"), "function": st.sampled_from([{"name": "f"}, {"name": "g"}])
})  # fmt: skip
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "tools": st.lists(st.fixed_dictionaries(
        {"type": often(st.just("function")), "function": often(FUNCTIONS)}), max_size=2),
    "tool_choice": st.sampled_from(["none", "auto", "required"]) | NAMED,
    "parallel_tool_calls": st.booleans(),
    "stop": SAYINGS | st.lists(SAYINGS, max_size=3),
    "max_tokens": st.integers(1, 9000),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(-1, 50),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "high", "xhigh", "max"]),
    "thinking": st.fixed_dictionaries(
        {"type": st.sampled_from(["enabled", "adaptive", "disabled", "between_tools"])},
        optional={"budget_tokens": st.integers(1000, 9000)}),
    "response_format": st.sampled_from([
        {"type": "text"}, {"type": "json_schema", "json_schema": {"schema": {}}}]),
    "user": SAYINGS,
    "service_tier": st.sampled_from(["auto", "flex", "default"]),
}  # fmt: skip
PIECES = st.one_of(
    rounds(), st.lists(MESSAGES, min_size=1, max_size=2), st.lists(STRAYS, max_size=1)
)
TALKS = st.lists(PIECES, min_size=1, max_size=4).map(
    lambda pieces: [{"role": "user", "content": "u"}, *(one for all in pieces for one in all)]
)
REQUESTS = st.fixed_dictionaries(
    {"messages": TALKS}, optional={name: often(likely) for name, likely in FIELDS.items()}
)
STRANGE = st.dictionaries(
    st.sampled_from(sorted(TRANSLATED | set(REFUSED) | set(DROPPED) - {"messages"})),
    anything, max_size=4,
)  # fmt: skip


def translated_or_refused(body: dict[str, Any], model: str) -> bool:
    raw = orjson.dumps(body)
    try:
        request = read_request(raw)
        as_read = orjson.dumps(request.body)
        translated = to_messages(request, model=model)
    except InvalidRequest as error:
        assert error.param or error.code == "bad_json"
        return False
    check(written(translated))
    assert orjson.dumps(request.body) == as_read, "the request was changed"
    return True


@settings(max_examples=200, deadline=None)
@given(REQUESTS, MODELS)
def test_what_is_translated_keeps_anthropics_rules(body, model):
    translated_or_refused(body, model)


@settings(max_examples=100, deadline=None)
@given(STRANGE, st.lists(STRAYS, min_size=1, max_size=2), MODELS)
def test_any_json_in_any_field_is_translated_or_refused(fields, messages, model):
    translated_or_refused({"messages": messages, **fields}, model)


@settings(max_examples=100, deadline=None)
@given(anything, anything, MODELS)
def test_any_message_is_translated_or_refused(value, other, model):
    before = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": value,
                 "thinking_blocks": other, "content": "y"}]  # fmt: skip
    translated_or_refused({"messages": [*before, before[0]], "tools": other}, model)

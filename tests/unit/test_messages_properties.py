"""What both dialects can say survives the way from one to the other, and back."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.anthropic_kit import BUDGET_MODEL, written
from tests.unit.messages_kit import (
    DONE,
    PDF,
    PNG,
    as_sdk,
    call,
    completion,
    data_of,
    gathered,
    read,
    result,
    text,
    use,
)
from tokenhub.dialects.anthropic.answers import to_chat_completion
from tokenhub.dialects.anthropic.requests import to_messages
from tokenhub.dialects.messages import MESSAGES
from tokenhub.dialects.messages.to_chat import DROPPED, REFUSED, TRANSLATED
from tokenhub.errors import InvalidRequest
from tokenhub.providers.simulator import openai_checks

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
NAMES = st.sampled_from(["find", "f-1", "Look_up"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=2),
    max_leaves=4,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=3)
TEXTS = st.builds(text, WORDS)
IMAGES = st.sampled_from([
    {"type": "image", "source": PNG},
    {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
])  # fmt: skip
DOCUMENTS = st.builds(
    lambda title: {"type": "document", "source": PDF, "title": title}, WORDS
)  # fmt: skip
SHOWN = TEXTS | IMAGES | DOCUMENTS
SCHEMAS = st.just({"type": "object"}) | st.builds(
    lambda names: {"type": "object", "properties": {name: {"type": "string"} for name in names}},
    st.lists(st.sampled_from("ab"), max_size=2, unique=True),
)
TOOLS = st.lists(
    st.builds(
        lambda name, more, schema: {"name": name, "input_schema": schema, **more},
        NAMES,
        st.fixed_dictionaries({}, optional={"description": WORDS, "strict": st.just(True)}),
        SCHEMAS,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: tool["name"],
)


@st.composite
def talks(draw: st.DrawFn, *, with_tools: bool) -> list[dict[str, Any]]:
    """Turns as Anthropic's rules want them: results first and all of them, text alone in them."""
    turns = [{"role": "user", "content": draw(st.lists(SHOWN, min_size=1, max_size=3))}]
    for number in range(draw(st.integers(0, 2))):
        said = draw(st.lists(TEXTS, max_size=2))
        ids = [f"t{number}-{each}" for each in range(draw(st.integers(0, 2)) * with_tools)]
        calls = [use(id, draw(NAMES)) | {"input": draw(OBJECTS)} for id in ids]
        if not said and not calls:
            said = [draw(TEXTS)]
        turns.append({"role": "assistant", "content": said + calls})
        results = [result(id, draw(st.lists(TEXTS, min_size=1, max_size=2)))
                   for id in draw(st.permutations(ids))]  # fmt: skip
        after = draw(st.lists(SHOWN, min_size=0 if results else 1, max_size=2))
        turns.append({"role": "user", "content": results + after})
    return turns


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests with what both dialects can say, in the form that the translation gives it."""
    with_tools = draw(st.booleans())
    found: dict[str, Any] = draw(st.fixed_dictionaries(
        {"max_tokens": st.integers(1, 10**6), "messages": talks(with_tools=with_tools)},
        optional={
            "system": st.lists(TEXTS, min_size=1, max_size=3),
            "temperature": st.floats(0, 0.99),
            "stop_sequences": st.lists(WORDS, min_size=1, max_size=4),
            "stream": st.just(True),
            "metadata": st.just({"user_id": "u-1"}),
            "service_tier": st.just("standard_only"),
            "output_config": st.just({"format": {"type": "json_schema", "schema": {"a": 1}}}),
        },
    ))  # fmt: skip
    if with_tools:
        found["tools"] = draw(TOOLS)
        choices: list[Any] = [{"type": kind} for kind in ("auto", "any", "none")]
        choices.append({"type": "tool", "name": found["tools"][0]["name"]})
        found["tool_choice"] = draw(st.sampled_from(choices))
        if found["tool_choice"]["type"] != "none" and draw(st.booleans()):
            found["tool_choice"]["disable_parallel_tool_use"] = True
    return found


@settings(max_examples=150, deadline=None)
@given(requests())
def test_a_request_comes_back_from_the_chat_dialect_as_it_went(given):
    request = MESSAGES.read(orjson.dumps({"model": "m", **given}))
    chat, dropped = MESSAGES.to_chat(request)
    assert dropped == ()
    openai_checks.check(orjson.loads(orjson.dumps(chat.body)))
    back = to_messages(chat, model=BUDGET_MODEL)
    assert back.dropped == ()
    expected = {**given, "model": BUDGET_MODEL}
    assert written(back) == orjson.loads(orjson.dumps(expected))


REASONS = st.sampled_from(["end_turn", "max_tokens"])


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, max_size=1), st.lists(OBJECTS, max_size=2), WORDS | st.just(""), REASONS)
def test_a_message_comes_back_from_a_completion_as_it_went(texts, inputs, thoughts, reason):
    thinking = [{"type": "thinking", "thinking": thoughts, "signature": "s"}] if thoughts else []
    calls = [use(f"call_{n}") | {"input": given} for n, given in enumerate(inputs)]
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
        "content": thinking + texts + calls,
        "stop_reason": "tool_use" if calls else reason, "stop_sequence": None,
        "stop_details": None,
        "usage": {"input_tokens": 5, "cache_creation_input_tokens": 2,
                  "cache_read_input_tokens": 3, "output_tokens": 4, "service_tier": "standard"},
    }  # fmt: skip
    through = to_chat_completion(message, created_at_secs=0)
    assert orjson.loads(orjson.dumps(MESSAGES.answer(through, read()))) == message


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], list[bytes]]:
    """A completion, and its chunks in blocks that end wherever an event does."""
    thoughts, words = draw(st.text(max_size=9)), draw(st.text(max_size=9))
    inputs = draw(st.lists(OBJECTS, max_size=3))
    calls = [call(orjson.dumps(each).decode(), f"c{n}") for n, each in enumerate(inputs)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": each} for each in _cut(draw, thoughts)]
    deltas += [{"content": each} for each in _cut(draw, words)]
    told = []
    for number, each in enumerate(calls):
        head = {"index": number, **each, "function": {**each["function"], "arguments": ""}}
        told.append([head] + [
            {"index": number, "function": {"arguments": part}}
            for part in _cut(draw, each["function"]["arguments"])
        ])  # fmt: skip
    if draw(st.booleans()):  # the calls in turns
        longest = max(map(len, told), default=0)
        pieces = [each[n] for n in range(longest) for each in told if n < len(each)]
    else:
        pieces = [part for each in told for part in each]
    deltas += [{"tool_calls": [part]} for part in pieces]
    whole = completion(
        "tool_calls" if calls else draw(st.sampled_from(["stop", "length", "content_filter"])),
        content=words, reasoning_content=thoughts, tool_calls=calls,
    )  # fmt: skip
    return whole, _blocks(draw, whole, deltas)


def _cut(draw: st.DrawFn, said: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(said)), max_size=3)))
    return [said[start:end] for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True)]


def _blocks(draw: st.DrawFn, whole: dict[str, Any], deltas: list[dict[str, Any]]) -> list[bytes]:
    events = []
    around = {"id": whole["id"], "model": whole["model"]}
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        events.append({**around, "choices": [choice]})
    last = {"index": 0, "delta": {}, "finish_reason": whole["choices"][0]["finish_reason"]}
    events += [{**around, "choices": [last]}, {**around, "choices": [], "usage": whole["usage"]}]
    written = [b"data: " + orjson.dumps(event) + b"\n\n" for event in events] + [DONE]
    cuts = sorted(draw(st.sets(st.integers(1, len(written) - 1), max_size=6)))
    return [b"".join(written[start:end])
            for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True)]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(streams())
def test_a_stream_gathers_to_the_whole_answer_wherever_its_blocks_end(given):
    whole, blocks = given
    request = read()
    translator = MESSAGES.translator(request)
    found = gathered(b"".join(map(translator.feed, blocks)))
    assert found == as_sdk(MESSAGES.answer(whole, request))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-3, 3) | st.text(max_size=5)
    | st.sampled_from(["text", "tool_use", "tool_result", "image", "user", "assistant", "enabled"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "role", "content", "text", "id", "name", "input", "source",
                         "tool_use_id", "input_schema", "budget_tokens", "format", "x"]),
        inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
FIELDS = sorted(TRANSLATED | set(REFUSED) | set(DROPPED))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4), ANYTHING, ANYTHING)
def test_any_json_is_translated_or_refused(fields, content, other):
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": [other]},
             {"role": "user", "content": "x"}]  # fmt: skip
    for messages in (turns, turns[::2]):
        raw = orjson.dumps({"max_tokens": 9, "messages": messages, **fields})
        try:
            request = MESSAGES.read(raw)
            MESSAGES.limit_output(request, 5)
            chat = MESSAGES.to_chat(request).request
        except InvalidRequest as error:
            assert error.param
        else:
            orjson.dumps(chat.body)
            assert orjson.loads(orjson.dumps(request.body)) == orjson.loads(raw)


DELTAS = st.fixed_dictionaries({}, optional={
    "content": ANYTHING, "reasoning": ANYTHING, "refusal": ANYTHING, "thinking_blocks": ANYTHING,
    "tool_calls": st.lists(st.fixed_dictionaries({}, optional={
        "index": ANYTHING, "id": ANYTHING, "function": st.fixed_dictionaries({}, optional={
            "name": ANYTHING, "arguments": ANYTHING})}), max_size=2) | ANYTHING,
})  # fmt: skip
CHOICES = st.fixed_dictionaries(
    {}, optional={"delta": DELTAS | ANYTHING, "finish_reason": ANYTHING, "index": ANYTHING}
)
CHUNKS = ANYTHING | st.fixed_dictionaries({}, optional={
    "id": ANYTHING, "model": ANYTHING, "usage": ANYTHING, "service_tier": ANYTHING,
    "choices": st.lists(CHOICES, max_size=2) | ANYTHING,
})  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(CHUNKS, max_size=5))
def test_any_chunks_become_a_whole_stream_of_anthropic_s(chunks):
    translator = MESSAGES.translator(read())
    stream = b"".join(translator.feed(b"data: " + orjson.dumps(each) + b"\n\n") for each in chunks)
    found = data_of(stream + translator.feed(DONE))
    assert [found[0]["type"], found[-1]["type"]] == ["message_start", "message_stop"]


@settings(max_examples=100, deadline=None)
@given(CHUNKS, st.lists(CHOICES | ANYTHING, max_size=2))
def test_any_completion_is_a_message(odd, choices):
    for found in (odd, {"choices": choices}, {"choices": [{"message": odd}]}):
        if isinstance(found, dict):
            as_sdk(MESSAGES.answer(found, read()))

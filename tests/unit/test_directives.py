"""Directives: what is read, what is taken out, and that all else stays to the byte."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.directives import MARKER, MODE_WORDS, NOTHING, Directive, strip, take_directive
from tokenhub.domain import MODES, ChatRequest
from tokenhub.domain import Dialect as DialectName

SCHEMA = '{"type": "object", "required": ["a b"]}'


def request(body: dict[str, Any], dialect: DialectName = "chat") -> ChatRequest:
    return ChatRequest(body, "", stream=False, input_tokens=1, dialect=dialect)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("@@tokenhub mode=cheap\nHello", "Hello"),
        ("Hello\n@@tokenhub mode=cheap", "Hello\n"),
        ("prefix @@tokenhub mode=cheap\nq", "prefix q"),
        ("@@tokenhub mode=cheap\r\nHello\r\n", "Hello\r\n"),
        ("@@tokenhub\r\nmode=cheap\r\n@@end\r\nHello", "Hello"),
        ("@@tokenhub  \t\n\n  mode = cheap  \n\n@@end  \nHello", "Hello"),
        ("@@tokenhub\nmode=cheap @@end Hello", " Hello"),
        ("a\n@@tokenhub mode=normal\nb\n@@tokenhub mode=cheap\nc", "a\nb\nc"),
        ("@@tokenhub\nlost?\n@@tokenhub\nmode=cheap\n@@end\nHello", "lost?\nHello"),
        ("@@tokenhub mode='cheap' what=ever", ""),
        ('@@tokenhub mode="cheap"\nHello', "Hello"),
        ("@@tokenhub mode=cheap\nWhat does @@tokenhub do?", "What does  do?"),
    ],
)
def test_a_directive_is_read_and_taken_out_and_the_rest_stays(text, kept):
    assert strip(text) == (kept, Directive(mode="cheap"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("mail me @ @tokenhub mode=cheap", "mail me @ @tokenhub mode=cheap"),
        ("@@tokenhubmode=cheap", "@@tokenhubmode=cheap"),
        ("@@tokenhub-x mode=cheap", "@@tokenhub-x mode=cheap"),
        ("@@TOKENHUB mode=cheap", "@@TOKENHUB mode=cheap"),
        ("Hello @@tokenhub", "Hello "),
        ("What is @@tokenhub for?", "What is  for?"),
        ("@@tokenhub\nmode=cheap\nHello", "mode=cheap\nHello"),
        ("@@tokenhub\r\nHello", "Hello"),
        ("@@tokenhub mode=dear Mode=cheap unknown=1\nHello", "Hello"),
        ("@@tokenhub budget=0 latency=0 min_weight=-1\nHello", "Hello"),
        ("@@tokenhub budget=100.1 latency=300001 min_weight=1001\nHello", "Hello"),
        ("@@tokenhub budget=nan latency=1.5 min_weight=x\nHello", "Hello"),
        ("@@tokenhub budget=inf latency=1_0 budget=-1 budget=0x1\nHello", "Hello"),
        ("@@tokenhub mode=\nHello", "Hello"),
    ],
)
def test_what_says_nothing_of_use_changes_nothing(text, kept):
    assert strip(text) == (kept, NOTHING)


def test_all_keys_are_read_in_either_form():
    said = Directive("thompson", 50_000_000, 2000, 7, SCHEMA)
    words = ["mode=thompson", "budget=5e-2", "latency=+2000", "min_weight=7"]
    line = " ".join([MARKER, *words, f"output_schema={SCHEMA}"])
    block = "\n".join([MARKER, *words, f"output_schema = {SCHEMA}", "@@end"])
    assert strip(line) == ("", said)
    assert strip(block) == ("", said)


def test_the_modes_of_the_original_are_known():
    for word, mode in MODE_WORDS.items():
        assert strip(f"@@tokenhub mode={word}") == ("", Directive(mode=mode))
    assert set(MODES) | {"vote", "refine"} == set(MODE_WORDS)


def test_a_wrong_value_leaves_the_others_in_force():
    assert strip("@@tokenhub mode=dear budget=1")[1] == Directive(max_budget_nanousd=10**9)
    assert strip("@@tokenhub min_weight=1000 latency=0")[1] == Directive(min_weight=10)


def test_a_budget_too_small_to_count_is_still_one():
    assert strip("@@tokenhub budget=1e-12")[1] == Directive(max_budget_nanousd=1)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (f"output_schema={SCHEMA} mode=cheap", SCHEMA),
        (f"output_schema={json.dumps(SCHEMA)} mode=cheap", SCHEMA),
        (f"output_schema='{SCHEMA}' mode=cheap", SCHEMA),
        ('output_schema={"a": mode=x', '{"a": mode=x'),
        ("output_schema=" + "[" * 100_000, "[" * 100_000),
        ("output_schema=true", "true"),
    ],
)
def test_a_schema_may_hold_spaces_and_be_in_quotes(given, read):
    assert strip(f"{MARKER} {given}")[1].output_schema == read


def test_a_schema_in_a_block_may_have_several_lines():
    schema = '{\r\n "type":\r\n "object"}'
    text = f"@@tokenhub\r\noutput_schema={schema}\r\nlatency=5\r\n@@end"
    assert strip(text) == ("", Directive(max_latency_ms=5, output_schema=schema))


def test_the_last_directive_of_a_conversation_counts_alone():
    first = {"role": "user", "content": "@@tokenhub mode=cheap budget=1\nHi"}
    second = {"role": "user", "content": [{"type": "text", "text": "@@tokenhub latency=9\nHo"}]}
    third = {"role": "user", "content": "@@tokenhub please"}
    asked = request({"messages": [first, second, third]})
    assert take_directive(asked) == Directive(max_latency_ms=9)
    assert first["content"] == "Hi"
    assert second["content"] == [{"type": "text", "text": "Ho"}]
    assert third["content"] == " please"


def test_only_what_users_wrote_is_read():
    text = "@@tokenhub mode=cheap"
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [{"type": "text", "text": text}],
    }
    messages = [
        *({"role": role, "content": text} for role in ("system", "assistant", "tool")),
        {"role": "user", "content": [result, {"type": "image_url", "text": text}]},
        {"role": "user", "content": None},
        "nonsense",
        {"role": "user", "content": [1, {"type": 1}]},
    ]
    before = orjson.dumps(messages)
    for dialect in ("chat", "messages"):
        assert take_directive(request({"messages": messages, "system": text}, dialect)) == NOTHING
    assert orjson.dumps(messages) == before


def test_the_input_of_a_response_is_read_and_that_of_embeddings_is_not():
    text = "@@tokenhub mode=cheap\nHello"
    plain = request({"input": text}, "responses")
    assert take_directive(plain) == Directive(mode="cheap")
    assert plain.body == {"input": "Hello"}
    item = {"role": "user", "content": [{"type": "input_text", "text": text}]}
    assert take_directive(request({"input": [item]}, "responses")) == Directive(mode="cheap")
    assert item["content"] == [{"type": "input_text", "text": "Hello"}]
    for dialect in ("embeddings", "completions"):
        body = {"input": text, "prompt": text, "messages": [{"role": "user", "content": text}]}
        assert take_directive(request(body, dialect)) == NOTHING
        assert body["input"] == text


SCHEMAS = st.dictionaries(st.text(max_size=5), st.text(max_size=9)).map(json.dumps)
DIRECTIVES = st.builds(
    Directive,
    mode=st.none() | st.sampled_from(MODES),
    max_budget_nanousd=st.integers(0, 100 * 10**9),
    max_latency_ms=st.integers(0, 300_000),
    min_weight=st.integers(0, 10),
    output_schema=st.just("") | SCHEMAS,
)
LINES = st.text(st.characters(exclude_characters="@"), max_size=40)


def render(directive: Directive, *, is_block: bool, newline: str) -> str:
    words = []
    if directive.mode is not None:
        words.append(f"mode={directive.mode}")
    if directive.max_budget_nanousd:
        words.append(f'budget="{directive.max_budget_nanousd / 1e9:.9f}"')
    if directive.max_latency_ms:
        words.append(f"latency = '{directive.max_latency_ms}'")
    if directive.min_weight:
        words.append(f"min_weight={directive.min_weight}")
    if directive.output_schema:
        words.append(f"output_schema={directive.output_schema}")
    if is_block:
        return newline.join([MARKER, *words, "@@end", ""])
    return " ".join([MARKER, *(words or ["none=0"])]) + newline


@given(DIRECTIVES, LINES, LINES, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_is_read_again_and_the_text_around_it_stays(
    directive, before, after, is_block, newline
):
    if "@@end" in directive.output_schema or MARKER in directive.output_schema:
        return
    written = render(directive, is_block=is_block, newline=newline)
    assert strip(before + written + after) == (before + after, directive)


@given(
    st.lists(
        st.sampled_from([MARKER, "@@end", "\n", "\r\n", " ", "mode=cheap", "=", '"', "'", "{", "x"])
        | st.text(max_size=5)
    ).map("".join)
)
def test_no_text_is_too_strange_and_none_keeps_a_marker_that_was_one(text):
    kept, said = strip(text)
    assert len(kept) <= len(text)
    if MARKER not in text:
        assert (kept, said) == (text, NOTHING)


def test_many_markers_take_no_longer_than_much_text():
    kept, said = strip("@@tokenhub\n" * 50_000)
    assert (kept, said) == ("", NOTHING)
    kept, said = strip("@@tokenhub output_schema={ mode=\n" * 20_000)
    assert kept == ""


@pytest.mark.parametrize(
    "text",
    ["@@tokenhub " * 40_000, "@@tokenhub\n" * 40_000, "@@tokenhub " + "mode='x' " * 40_000],
)
def test_a_text_of_nothing_but_markers_is_read_in_no_time(text):
    began = time.process_time()
    strip(text)
    assert time.process_time() - began < 2

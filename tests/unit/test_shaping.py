"""Answers in the shape that was asked for, whole and streamed: both come to the same."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.chunk_kit import answer_of, run, streamed
from tokenhub.dialects.shaped import Shaper
from tokenhub.errors import InvalidRequest
from tokenhub.shaping import OutputFormat, find_json, read_format, shape

THINK = OutputFormat(strip_think=True)
FORMATS = [
    OutputFormat("json"), OutputFormat("markdown"), OutputFormat("text"), THINK,
    OutputFormat(max_tokens=3), OutputFormat("text", strip_think=True, max_tokens=4),
    OutputFormat("json", strip_think=True, max_tokens=2),
]  # fmt: skip
PIECES = st.sampled_from([
    "<think>", "</think>", "<thinking>", "</Thinking>", "<thi", "nk>", "<", ">", "a", " ", "\n",
    "é", "👩\u200d💻", "🇩🇪", "e\u0301", "```json\n", "```", '{"a":1}', "[1]", "# x", "**b**",
    "* c", "`d`",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def completion(text, **message):
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "model": "m", "system_fingerprint": "fp",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **message},
                     "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }  # fmt: skip


def shaped(text, wanted):
    return shape(completion(text), wanted)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>hm</think>\n\nYes.", "Yes."),
        ("A <think>b</think> C <thinking>d</thinking>\nE", "A C E"),
        ("Yes.\n<think>never closed", "Yes."),
        ("<THINK>x</Think>Yes", "Yes"),
        ("<thinking>a</think>b</thinking>c", "c"),
        ("1 < 2 <thin", "1 < 2 <thin"),
        ("", ""),
    ],
)
def test_thoughts_go_closed_or_not(text, expected):
    assert shaped(text, THINK) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('Sure!\n```json\n{"a": [1, 2]}\n```\nBye', '{"a": [1, 2]}'),
        ('```\n[1]\n```', "[1]"),
        ('```python\nx = {}\n```\n```json\n{"b": 2}\n```', '{"b": 2}'),
        ('The answer {as asked} is {"a": {"b": "}"}} indeed.', '{"a": {"b": "}"}}'),
        ("no JSON at all {", None),
        ('{"a": NaN}', None),
        ("7", "7"),
        ("[" * 5000, None),
    ],
)  # fmt: skip
def test_json_is_found_in_fences_and_prose(text, expected):
    assert find_json(text) == expected
    assert shaped(text, OutputFormat("json")) == (expected or text)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 40_000, "```a\n" * 50_000, "[{" * 90_000]
)
def test_looking_for_json_ends_in_time(text):
    began = time.monotonic()
    assert find_json(text) is None
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Head\n\n**bold** and *it* and ***both***", "Head\n\nbold and it and both"),
        ("2 * 3 * 4, 2**3**4, a_b_c, *args", "2 * 3 * 4, 2**3**4, a_b_c, *args"),
        ("```py\n  x = a * b * c  # `no`\n```\nend", "x = a * b * c  # `no`\nend"),
        ("see [this](https://x.y) ![alt](z.png) <https://a.b>",
         "see this (https://x.y) alt https://a.b"),
        ("* one\n  + two\n> said", "- one\n  - two\nsaid"),
        ("use `a*b*c` and \\*this\\*", "use a*b*c and *this*"),
        ("这是**重点**内容 ~~old~~ __new__", "这是重点内容 old new"),
        ("a\n---\nb", "a\n\nb"),
    ],
)  # fmt: skip
def test_markdown_becomes_plain_text_and_nothing_else_is_damaged(text, expected):
    assert shaped(text, OutputFormat("text")) == expected


@pytest.mark.parametrize(
    "line", ["*a" * 50_000, "**a " * 50_000, "[a](" * 50_000, "![" * 50_000, "`` a`" * 30_000,
             "_ _a" * 50_000, "# " * 80_000, "> " * 80_000, "* " * 80_000, "<http://" * 30_000],
)  # fmt: skip
def test_plain_text_takes_no_longer_than_the_line_is(line):
    began = time.monotonic()
    shaped(line, OutputFormat("text"))
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("abcd", 1, "abcd"),
        ("abcde", 1, "abcd..."),
        ("ééé", 1, "éé..."),
        ("日本語", 1, "日..."),
        ("abe\u0301x", 1, "ab..."),
        ("ae\u0301x", 1, "ae\u0301..."),
        ("ab👩‍💻", 2, "ab..."),
        ("🇩🇪🇫🇷", 2, "🇩🇪..."),
        ("🇩🇪🇫🇷", 3, "🇩🇪..."),
    ],
)
def test_a_text_is_cut_between_characters(text, tokens, expected):
    whole = shape(completion(text), OutputFormat(max_tokens=tokens))
    assert whole["choices"][0]["message"]["content"] == expected
    is_cut = expected.endswith("...")
    assert whole["choices"][0]["finish_reason"] == ("length" if is_cut else "stop")


def test_all_else_of_an_answer_stays():
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]
    before = completion(" **x** ", tool_calls=calls, annotations=[], reasoning_content="hm")
    before["choices"][0]["finish_reason"] = "tool_calls"
    kept = orjson.dumps(before)
    after = shape(before, OutputFormat("text", max_tokens=1))
    assert orjson.dumps(before) == kept
    before["choices"][0]["message"]["content"] = "x"
    assert after == before
    assert "reasoning_content" not in shape(before, THINK)["choices"][0]["message"]
    assert shape(before, OutputFormat()) is before


def test_every_choice_is_shaped():
    before = completion("<think>a</think>b")
    before["choices"].append({"index": 1, "message": {"content": "<think>c"}, "x": 1})
    before["choices"].append({"index": 2, "message": {"content": None}})
    after = shape(before, THINK)["choices"]
    assert [each["message"]["content"] for each in after] == ["b", "", None]
    assert after[1]["x"] == 1


@given(TEXTS, TEXTS, st.data(), st.sampled_from(FORMATS))
def test_a_stream_comes_to_the_same_however_it_is_cut(one, two, data, wanted):
    texts = [one, two]
    whole = completion(one)
    second = {**whole["choices"][0], "index": 1, "message": {"role": "assistant", "content": two}}
    whole["choices"].append(second)
    expected = shape(whole, wanted)["choices"]
    found = answer_of(run(Shaper(wanted), streamed(texts, data.draw)))
    assert [each["content"] for each in found.choices] == [
        each["message"]["content"] for each in expected
    ]
    assert [each["finish_reason"] for each in found.choices] == [
        each["finish_reason"] for each in expected
    ]
    assert found.usage == {"total_tokens": 9}
    assert found.is_done


def test_a_stream_says_what_it_can_at_once():
    stage = Shaper(OutputFormat("text", strip_think=True))
    blocks = [
        stage.feed(b'data: ' + json.dumps({"id": "i", "choices": [
            {"index": 0, "delta": {"content": text, "x": 1}, "finish_reason": None}]}).encode()
            + b"\n\n")
        for text in ("<thi", "nk>hm", "</think>one\n", "two")
    ]  # fmt: skip
    assert [b"content" in block for block in blocks] == [False, False, True, False]
    assert b'"x":1' in blocks[0]
    rest = stage.feed(b"data: [DONE]\n\n")
    assert b'"content":"\\ntwo"' in rest
    assert b'"id":"i"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")


def test_comments_and_what_is_no_chunk_pass():
    blocks = b': ping\n\ndata: {"x":1}\n\ndata: nonsense\n\ndata: {"choices":[7]}\n\n'
    assert Shaper(OutputFormat("json")).feed(blocks) == blocks


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("json", "f"), ({"type": "xml"}, "f.type"), ({"type": 1}, "f.type"),
        ({"strip_think": 1}, "f.strip_think"), ({"max_tokens": -1}, "f.max_tokens"),
        ({"max_tokens": True}, "f.max_tokens"), ({"max_tokens": 1.5}, "f.max_tokens"),
        ({"kind": "json"}, "f.kind"),
    ],
)  # fmt: skip
def test_a_bad_format_is_refused_by_field(value, param):
    with pytest.raises(InvalidRequest) as refused:
        read_format(value, "f")
    assert refused.value.param == param


def test_a_format_is_read():
    value = {"type": "json", "schema": '{"type":"object"}', "max_tokens": 5, "strip_think": True}
    assert read_format(value) == OutputFormat("json", True, 5, '{"type":"object"}')
    assert read_format(None).changes_nothing

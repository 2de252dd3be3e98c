"""Schemas as they are read, answers as they are checked, and what is asked again."""

from __future__ import annotations

import re
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.chunk_kit import DONE, answer_of, chunk, event, run
from tokenhub.dialects.checked import SchemaCheck
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest, SchemaUnmet
from tokenhub.structured import (
    answer_with_schema,
    check,
    read_schema,
    schema_of,
    with_instruction,
    with_schema,
)
from tokenhub.structured.patterns import Pattern

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOD, BAD = '{"name":"Ada","age":36}', '{"name":"Ada","age":-1,"x":1}'
TREE = {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}


def schema(value: Any = PERSON):
    return read_schema(value, "output_schema")


def request(**body):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    found = {"messages": turns, "temperature": 0, **body}
    return ChatRequest(found, "m", False, 1, needs=frozenset({"tools"}))


def completion(text, reason="stop", **message):
    choice = {"index": 0, "message": {"content": text, **message}, "finish_reason": reason}
    return {"id": "1", "usage": {"total_tokens": 3}, "choices": [choice]}


def calls_of(*answers):
    """A `call` that gives these answers, and the requests that it was asked."""
    asked: list[ChatRequest] = []
    left = list(answers)

    def call(each: ChatRequest):
        asked.append(each)
        return left.pop(0)

    return call, asked


@pytest.mark.parametrize(
    ("value", "text", "errors"),
    [
        (PERSON, GOOD, []),
        (PERSON, BAD, ["$.age: -1 is less than the minimum of 0",
                       "$: additional properties are not allowed: 'x'"]),
        (PERSON, "[]", ["$: [] is not of type 'object'"]),
        (PERSON, "Sure!", ["$: the text is not valid JSON: "]),
        (TREE, "[[],[[]]]", []),
        (TREE, "[[],[7]]", ["$[1][0]: 7 is not of type 'array'"]),
        ({"items": {"pattern": "^a+$"}}, '["aa","b"]', ["$[1]: 'b' does not match '^a+$'"]),
        ({"uniqueItems": True}, '[1,{"a":1,"b":2},{"b":2.0,"a":1}]',
         ["$: the items are not all different"]),
        ({"uniqueItems": True}, '[1,true,"1"]', []),
        ({"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False},
         '{"x-a":"1","b":1,"x-c":2}',
         ["$['x-c']: 2 is not of type 'string'",
          "$: additional properties are not allowed: 'b'"]),
        ({"anyOf": [{"type": "string"}, {"const": 1}]}, "2",
         ["$: 2 is not valid under any of the given schemas"]),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]}, '{"a":1}', []),
        ({"prefixItems": [{"const": 1}], "items": False, "minContains": 1, "contains": {}}, "[1]",
         []),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^a"}, '"ab"', []),
        ({"format": "email"}, '"no email"', []),
        (True, "1", []),
        (False, "1", ["$: False schema does not allow 1"]),
    ],
)  # fmt: skip
def test_a_text_is_checked_against_the_whole_schema(value, text, errors):
    found = sorted(check(text, schema(value)))
    assert len(found) == len(errors)
    assert all(map(str.startswith, found, sorted(errors)))


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (7, ""), (None, ""), ("{", ""), ([], ""), ("7", ""),
        ({"type": "objekt"}, ".type"),
        ({"properties": {"a": {"minimum": "1"}}}, ".properties.a.minimum"),
        ({"$ref": "https://example.com/x.json"}, ".$ref"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, ".properties.a.$ref"),
        ({"$ref": "#/$defs/none"}, ".$ref"),
        ({"const": {"pattern": "("}, "$ref": "#/const"}, ".$ref"),
        ({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}},
         ".properties.a.$schema"),
        ({"$defs": {"a": {"$id": "https://example.com/a"}}}, ".$defs.a.$id"),
        ({"pattern": "("}, ".pattern"), ({"pattern": "(?=a)"}, ".pattern"),
        ({"pattern": "a{5000}"}, ".pattern"), ({"pattern": "x" * 2000}, ".pattern"),
        ({"patternProperties": {"*": {}}}, ".patternProperties"),
        ({"unevaluatedProperties": False, "patternProperties": {"(a+)+$": {}}},
         ".patternProperties"),
        ({"description": "x" * 200_000}, ""),
        ({"enum": list(range(30_000))}, ""),
    ],
)  # fmt: skip
def test_a_bad_schema_is_refused_with_its_path(value, param):
    with pytest.raises(InvalidRequest) as refused:
        schema(value)
    assert refused.value.param == "output_schema" + param


def test_a_schema_that_is_nested_too_deeply_is_refused():
    value: Any = {}
    for _ in range(3000):
        value = {"not": value}
    with pytest.raises(InvalidRequest, match="deep"):
        schema(value)


LOOP = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}},
        "$ref": "#/$defs/a"}  # fmt: skip
TWICE = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
CHAIN: dict[str, Any] = {"$ref": "#/$defs/d0", "$defs": {**TWICE, "d40": {}}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (LOOP, "1"), (CHAIN, "1"),
        ({"items": {"pattern": "^(a+)+(b+)+(c|d)+$"}}, orjson.dumps(["a" * 9000] * 99).decode()),
        ({"uniqueItems": True}, orjson.dumps([{"a": n} for n in range(60_000)]).decode()),
    ],
)  # fmt: skip
def test_a_check_ends_in_time(value, text):
    began = time.monotonic()
    check(text, schema(value))
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "odd",
    [{"$ref": 5}, {"$dynamicRef": []}, {"pattern": 5}, {"pattern": [1]}, {"patternProperties": 5},
     {"properties": 5}, {"$id": 3}, {"enum": 1}],
)  # fmt: skip
def test_what_stands_behind_unknown_keywords_is_no_schema(odd):
    closed = {"type": "object", "additionalProperties": False, "properties": {}, "x-odd": odd}
    assert check("{}", read_schema(closed, "schema")) == []
    with pytest.raises(InvalidRequest):
        read_schema({"$ref": "#/x-odd", "x-odd": odd}, "schema")


def test_a_long_enumeration_takes_as_many_steps():
    many = schema({"items": {"enum": [f"value-{number}" for number in range(9_000)]}})
    began = time.monotonic()
    assert check(orjson.dumps(["none"] * 5_000).decode(), many)
    assert time.monotonic() - began < 8


def test_what_takes_too_long_is_said_to():
    assert check("1", schema(CHAIN)) == ["$: the text takes too long to be checked"]
    assert check("[" * 2000 + "]" * 2000, schema(TREE)) != []


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "[^a]", ".", r"\d", r"\w", r"[a-c\d-]", "^", r"\b", "1"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        inner.map(lambda each: f"({each})*"), inner.map(lambda each: f"({each})+"),
        inner.map(lambda each: f"({each})?"), inner.map(lambda each: f"({each}){{1,2}}"),
        inner.map(lambda each: f"(?:{each}){{2,}}"),
    ),
    max_leaves=6,
)  # fmt: skip


@given(PATTERNS, st.text("ab1- ", max_size=7))
def test_patterns_match_what_pythons_match(pattern, text):
    expected = re.search(pattern, text, re.ASCII) is not None
    assert Pattern(pattern).is_in(text) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "is_in"),
    [
        (r"^\d{3}-\d{4}$", "555-1234", True), (r"^\d{3}-\d{4}$", "555-1234\n", False),
        (r"^[^\s@]+@[\w.-]+\.[a-z]{2,}$", "a@b.example", True), ("^$", "", True),
        (r"^\u00e9\x41\/$", "éA/", True), (r"[\]\\]", "]", True), ("a{", "a{", True),
        (r"^([a-z]+\.)*[a-z]+$", "a.b.c", True), (r"\Bb", "ab", True), ("a|", "", True),
        (r"^(?<year>\d+)$", "2026", True), (r"^\u{1F600}$", "😀", True),
        ("é", "É", False), (r"^\p{L}+$", "é", True), (r"\\u0041", "A", False),
        ("[]", "", None), ("a**", "", None), ("a{2,1}", "", None),
        ("[b-a]", "", None), (r"(a)\1", "", None), ("a)", "", None), ("[a", "", None),
    ],
)  # fmt: skip
def test_patterns_are_those_of_ecma(pattern, text, is_in):
    if is_in is None:
        with pytest.raises(ValueError, match=" "):
            Pattern(pattern)
    else:
        assert Pattern(pattern).is_in(text) == is_in


@given(st.text("ab()[]{}|*+?^$\\-,.12dwu\ud800", max_size=12))
def test_any_text_is_a_pattern_or_is_refused(text):
    try:
        found = Pattern(text)
    except ValueError:
        return
    found.is_in("ab12")


def test_an_answer_that_keeps_to_the_schema_is_asked_for_once():
    call, asked = calls_of(completion(GOOD))
    assert answer_with_schema(call, request(), schema(), 1) == completion(GOOD)
    assert asked == [request()]


def test_json_in_a_fence_is_taken_out_and_all_else_stays():
    call, asked = calls_of(completion(f"Here:\n```json\n{GOOD}\n```", annotations=[]))
    assert answer_with_schema(call, request(), schema(), 0) == completion(GOOD, annotations=[])
    assert len(asked) == 1


def test_an_answer_that_does_not_is_asked_for_again_with_what_is_wrong():
    call, asked = calls_of(completion(BAD), completion("no"), completion(GOOD))
    assert answer_with_schema(call, request(), schema(), 2) == completion(GOOD)
    again = asked[1].body["messages"]
    assert again[:2] == request().body["messages"]
    assert again[2] == {"role": "assistant", "content": BAD}
    assert again[3]["role"] == "user"
    assert "$.age: -1 is less than the minimum of 0" in again[3]["content"]
    assert asked[1].body["temperature"] == 0
    assert asked[1].input_tokens > request().input_tokens
    assert asked[2].body["messages"][2] == {"role": "assistant", "content": "no"}
    assert len(asked[2].body["messages"]) == 4


@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_no_more_is_asked_than_allowed_and_the_errors_are_told(repairs):
    call, asked = calls_of(*[completion(BAD)] * 9)
    with pytest.raises(SchemaUnmet) as failed:
        answer_with_schema(call, request(), schema(), repairs)
    assert len(asked) == repairs + 1
    assert (failed.value.status, failed.value.code) == (422, "schema_unmet")
    assert "$.age: -1 is less than the minimum of 0" in failed.value.details["errors"]


def test_what_was_cut_off_is_not_asked_for_again():
    call, asked = calls_of(completion('{"name":', "length"))
    with pytest.raises(SchemaUnmet) as failed:
        answer_with_schema(call, request(), schema(), 3)
    assert failed.value.details["errors"] == ["$: the answer was cut off at its token limit"]
    assert len(asked) == 1


@pytest.mark.parametrize("message", [{"tool_calls": [{"id": "1"}]}, {"refusal": "no"}])
def test_a_choice_that_calls_tools_or_refuses_is_let_through(message):
    call, _ = calls_of(completion(None, **message))
    assert answer_with_schema(call, request(), schema(), 1) == completion(None, **message)


def test_all_choices_must_keep_to_it():
    both = completion(GOOD)
    both["choices"] += completion(BAD)["choices"]
    call, asked = calls_of(both, completion(GOOD))
    assert answer_with_schema(call, request(), schema(), 1) == completion(GOOD)
    assert asked[1].body["messages"][2]["content"] == BAD


def test_the_schema_is_sent_to_models_that_know_schemas():
    found = with_schema(request(), schema())
    assert found.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": PERSON, "strict": True},
    }
    assert found.needs == {"tools", "json"}
    assert schema_of(found) is schema_of(found)
    assert schema_of(request()) is None
    assert schema_of(request(response_format={"type": "json_object"})) is None


def test_others_are_told_in_words():
    found = with_instruction(with_schema(request(), schema()), schema())
    assert "response_format" not in found.body
    assert found.needs == {"tools"}
    said = found.body["messages"][0]
    assert said["role"] == "system"
    assert orjson.dumps(PERSON).decode() in said["content"]
    assert found.body["messages"][1:] == request().body["messages"]


@pytest.mark.parametrize(
    ("value", "is_strict"),
    [
        (PERSON, True), ({**PERSON, "required": ["name"]}, False),
        ({**PERSON, "additionalProperties": True}, False), ({"type": "array", "items": {}}, False),
        ({"type": "object"}, False), (True, False), ({**PERSON, "not": {}}, False),
    ],
)  # fmt: skip
def test_strict_is_what_openai_takes_as_strict(value, is_strict):
    assert schema(value).is_strict == is_strict


def test_a_bad_schema_of_a_response_format_is_refused():
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}
    with pytest.raises(InvalidRequest) as refused:
        schema_of(request(response_format=wanted))
    assert refused.value.param == "response_format.json_schema.schema.type"


def streamed(text, reason="stop", size=5, **delta):
    events = [event(chunk(0, {"role": "assistant", "content": "", **delta}))]
    events += [event(chunk(0, {"content": text[at : at + size]}))
               for at in range(0, len(text), size)]  # fmt: skip
    return [*events, event(chunk(0, {}, reason)), DONE]


def test_a_stream_that_keeps_to_the_schema_passes_as_it_comes():
    blocks = streamed(GOOD)
    stage = SchemaCheck(schema())
    assert list(map(stage.feed, blocks)) == blocks
    assert stage.errors == []


def test_a_stream_that_does_not_ends_with_an_error_event():
    stage = SchemaCheck(schema())
    found = answer_of(run(stage, streamed(BAD)))
    assert found.choices[0]["content"] == BAD
    assert found.choices[0]["finish_reason"] == "stop"
    assert (found.error["code"], found.error["type"]) == ("schema_unmet", "invalid_request_error")
    assert found.error["errors"] == stage.errors != []
    assert found.is_done


@given(st.integers(1, 40), st.sampled_from(["```json\n%s\n```", "Sure: %s!", " \n%s", "%s\n"]))
def test_the_json_of_a_stream_is_taken_out_of_prose(size, around):
    text = around % GOOD
    found = answer_of(run(SchemaCheck(schema()), streamed(text, size=size)))
    assert found.error is None
    assert orjson.loads(found.choices[0]["content"]) == orjson.loads(GOOD)


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("Sure, no JSON", "stop", "the text is not valid JSON"),
        ('{"name":', "length", "cut off at its token limit"),
        (GOOD + " And more.", "stop", "more than the JSON value"),
        ("", "stop", "not valid JSON"),
    ],
)
def test_a_stream_says_why_it_does_not(text, reason, said):
    found = answer_of(run(SchemaCheck(schema()), streamed(text, reason)))
    assert said in found.error["errors"][0]
    assert found.choices[0]["content"] == text


def test_a_stream_of_nothing_and_one_of_calls():
    assert answer_of(SchemaCheck(schema()).feed(DONE)).error["errors"] == ["$: there is no answer"]
    calls = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]
    found = answer_of(run(SchemaCheck(schema()), streamed("Look:", "tool_calls", tool_calls=calls)))
    assert found.error is None
    assert found.choices[0]["content"] == "Look:"

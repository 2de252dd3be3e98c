"""Calls in streams of every make: each is told whole, under its name, whatever comes between."""

from __future__ import annotations

from time import process_time
from typing import Any

import orjson
import pytest

from tests.unit.responses_kit import (
    FUNCTION,
    RESPONSES,
    checked,
    chunk,
    client,
    completion,
    ending,
    read,
)


def piece(index: int, arguments: str = "", *, id: str = "", name: str = "") -> bytes:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    call = {"index": index, "function": function, **({"id": id} if id else {})}
    return chunk({"tool_calls": [call]})


def streamed(*blocks: bytes, reason: str = "tool_calls") -> bytes:
    translator = RESPONSES.translator(read(stream=True, tools=[FUNCTION]))
    return b"".join(map(translator.feed, [*blocks, ending(reason)]))


def output_of(raw: bytes) -> list[Any]:
    """What each item says, after its events were checked to come to the same."""
    told = checked(raw)
    output: list[dict[str, Any]] = told[-1]["response"]["output"]
    for event in told:
        if event["type"] == "response.output_item.done":
            assert event["item"] == output[event["output_index"]]
        if event["type"] == "response.output_item.added":
            assert event["item"].get("name") != ""
    for at, item in enumerate(output):
        if item["type"] == "function_call":
            deltas = [event["delta"] for event in told if event.get("output_index") == at
                      and event["type"] == "response.function_call_arguments.delta"]  # fmt: skip
            assert "".join(deltas) == item["arguments"]
    return [(item["name"], item["arguments"]) if "name" in item else item["content"][0]["text"]
            for item in output]  # fmt: skip


@pytest.mark.parametrize("between", [{"content": "\n"}, {"reasoning_content": "\n"}])
def test_what_is_said_between_the_pieces_of_a_call_leaves_it_whole(between):
    raw = streamed(piece(0, '{"q":', id="a", name="find"), chunk(between), piece(0, '"x"}'))
    assert output_of(raw) == [("find", '{"q":"x"}'), "\n"]


def test_a_call_is_told_once_its_name_is_known():
    raw = streamed(piece(0, '{"q"', id="a"), chunk({"content": "so"}), piece(0, ":1", name="find"),
                   piece(0, "}"), piece(1, "lost"))  # fmt: skip
    assert output_of(raw) == ["so", ("find", '{"q":1}')]
    assert checked(raw)[-1]["response"]["output"][1]["call_id"] == "a"


@pytest.mark.parametrize("arguments", ["", " "])
def test_a_call_without_arguments_has_an_empty_object(arguments):
    raw = streamed(piece(0, arguments, id="a", name="find"), piece(1, "{}", id="b", name="find"))
    assert output_of(raw) == [("find", arguments + "{}"), ("find", "{}")]
    whole = completion({"tool_calls": [
        {"id": "a", "function": {"name": "find", "arguments": arguments}},
        {"id": "b", "function": {"name": "find", "arguments": "{}"}},
    ]}, "tool_calls")  # fmt: skip
    assert RESPONSES.answer(whole, read(tools=[FUNCTION])) == checked(raw)[-1]["response"]
    with client(raw).responses.stream(model="m", input="hi", tools=[FUNCTION]) as stream:  # type: ignore[list-item]
        item = stream.get_final_response().output[0]
    assert orjson.loads(item.to_json())["parsed_arguments"] == {}


def test_a_call_that_was_cut_before_its_arguments_has_none():
    raw = streamed(piece(0, id="a", name="find"), reason="length")
    assert output_of(raw) == [("find", "")]
    assert checked(raw)[-1]["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        # Without ids, all at one place.
        ([("find", '{"q":1}'), ("find", '{"q":2}')], [("find", '{"q":1}'), ("find", '{"q":2}')]),
        ([("find", '{"q":1'), ("look", "{}")], [("find", '{"q":1'), ("look", "{}")]),
        ([("find", "{}"), ("find", ""), ("", "{}")], [("find", "{}"), ("find", "{}")]),
        # A server that says the name with every piece.
        ([("find", ""), ("find", '{"q":'), ("find", "1}")], [("find", '{"q":1}')]),
    ],
)  # fmt: skip
def test_calls_at_one_place_are_told_apart_by_their_names(pieces, calls):
    assert output_of(streamed(*(piece(0, each, name=name) for name, each in pieces))) == calls


def test_only_what_was_being_written_is_cut():
    raw = streamed(piece(0, "{}", id="a", name="find"), chunk({"content": "so"}), reason="length")
    output = checked(raw)[-1]["response"]["output"]
    assert [item["status"] for item in output] == ["completed", "incomplete"]


def test_ever_so_many_calls_amid_text_are_told_in_time():
    translator, started = RESPONSES.translator(read(stream=True)), process_time()
    for at in range(5000):
        translator.feed(piece(at, "{}", id=f"c{at}", name="find") + chunk({"content": "so"}))
    translator.feed(ending("tool_calls"))
    assert process_time() - started < 3.0

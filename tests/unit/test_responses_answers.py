"""Chat completions as responses, whole and streamed: OpenAI's SDK takes both, and for the same."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response
from pydantic import BaseModel

from tests.unit.responses_kit import (
    FUNCTION,
    HEAD,
    RESPONSES,
    accumulated,
    checked,
    chunk,
    client,
    completion,
    ending,
    read,
)
from tokenhub.dialects.openai import DONE
from tokenhub.errors import ProviderError

CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}}
LOGPROB = {"token": "hé", "logprob": -0.5, "bytes": None,
           "top_logprobs": [{"token": "a", "logprob": -1.5, "bytes": [97]}]}  # fmt: skip
SAID_LOGPROB = {"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169],
                "top_logprobs": [{"token": "a", "logprob": -1.5, "bytes": [97]}]}  # fmt: skip


def whole(found: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The response for a completion, as the SDK reads it."""
    response = RESPONSES.answer(found, read(**fields))
    Response.model_validate(response)
    return response


def streamed(*blocks: bytes, **fields: Any) -> bytes:
    translator = RESPONSES.translator(read(stream=True, **fields))
    return b"".join(translator.feed(block) for block in blocks)


def test_a_text_is_a_message():
    response = whole(completion({"role": "assistant", "content": "hello", "refusal": None}))
    assert response == {
        "id": "resp_abc", "object": "response", "created_at": 1700000000, "status": "completed",
        "background": False, "error": None, "incomplete_details": None, "instructions": None,
        "max_output_tokens": None, "max_tool_calls": None, "metadata": {}, "model": "m-1",
        "output": [{
            "id": "msg_abc_0", "type": "message", "role": "assistant", "status": "completed",
            "content": [{
                "type": "output_text", "text": "hello", "annotations": [], "logprobs": []}]}],
        "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None}, "safety_identifier": None,
        "service_tier": "default", "store": False, "temperature": None,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
        "top_logprobs": 0, "top_p": None, "truncation": "disabled", "user": None,
        "usage": {"input_tokens": 9,
                  "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
                  "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 3},
                  "total_tokens": 14},
    }  # fmt: skip


def test_thoughts_text_and_calls_are_items_in_this_order():
    second = {**CALL, "id": "call_2"}
    response = whole(completion(
        {"content": "so", "reasoning_content": "hm", "tool_calls": [CALL, second]}, "tool_calls"
    ))  # fmt: skip
    assert response["status"] == "completed"
    assert response["output"] == [
        {"id": "rs_th_abc_0", "type": "reasoning", "summary": [], "status": "completed",
         "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"id": "msg_abc_1", "type": "message", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "so", "annotations": [], "logprobs": []}]},
        {"id": "fc_abc_2", "type": "function_call", "status": "completed", "call_id": "call_1",
         "name": "find", "arguments": '{"q":1}'},
        {"id": "fc_abc_3", "type": "function_call", "status": "completed", "call_id": "call_2",
         "name": "find", "arguments": '{"q":1}'},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_have_two_names_and_may_be_all_there_is(name):
    response = whole(completion({"content": None, name: "hm"}, "length"))
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert response["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("reason", "cut"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_is_incomplete(reason, cut):
    message = {"content": "a", "tool_calls": [CALL]}
    response = whole(completion(message, reason))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": cut})
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    last = checked(streamed(chunk(message), ending(reason)))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"] == response


def test_a_refusal_is_a_part_of_the_message():
    response = whole(completion({"content": None, "refusal": "no"}))
    assert response["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]
    told = checked(streamed(chunk({"refusal": "n"}), chunk({"refusal": "o"}), ending()))
    assert [event["type"] for event in told][4:7] == [
        "response.refusal.delta", "response.refusal.delta", "response.refusal.done",
    ]  # fmt: skip
    assert told[-1]["response"] == response


def test_log_probabilities_stand_with_the_text():
    choice: dict[str, Any] = {"logprobs": {"content": [LOGPROB], "refusal": None}}
    response = whole(completion({"content": "hé"}, **choice))
    assert response["output"][0]["content"][0]["logprobs"] == [SAID_LOGPROB]
    told = checked(streamed(chunk({"content": "hé"}, **choice), ending()))
    assert [event["logprobs"] for event in told if "logprobs" in event] == [[SAID_LOGPROB]] * 2
    assert told[-1]["response"] == response


def test_an_empty_answer_is_an_empty_message():
    response = whole(completion({"content": None}))
    assert response["output"][0]["content"][0]["text"] == ""
    assert checked(streamed(DONE))[-1]["response"]["output"][0]["content"][0]["text"] == ""


@pytest.mark.parametrize(
    "found",
    [
        {}, {"choices": None}, {"choices": [None]}, {"choices": [{"message": []}]},
        {**HEAD, "created": "now", "usage": "much", "service_tier": "standard",
         "choices": [{"message": {"content": [], "tool_calls": [7, {"function": "f"}]},
                      "finish_reason": ["stop"], "logprobs": {"content": [1, {"logprob": None}]}}]},
    ],
)  # fmt: skip
def test_what_is_not_of_the_shape_we_know_is_left_out(found):
    response = whole(found)
    assert (response["status"], response["usage"]) == ("completed", None)
    assert len(response["output"]) == 1


def test_a_response_repeats_its_request():
    fields = {
        "instructions": "I", "max_output_tokens": 50, "metadata": {"a": "b"}, "temperature": 0.5,
        "parallel_tool_calls": False, "prompt_cache_key": "k", "safety_identifier": "s",
        "tool_choice": {"type": "function", "name": "find"}, "tools": [FUNCTION], "top_p": 0.9,
        "top_logprobs": 2, "user": "u",
    }  # fmt: skip
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    asked = {"text": {"format": schema, "verbosity": "low"},
             "reasoning": {"effort": "low", "summary": "auto"}}  # fmt: skip
    response = whole(completion({"content": "a"}), **fields, **asked)
    assert {name: response[name] for name in fields} == fields
    assert response["text"] == asked["text"]
    assert response["reasoning"] == {"effort": "low", "summary": None}  # there is none


def test_ids_are_plain_and_short_enough_to_be_sent_back():
    found = {**completion({"content": "a", "tool_calls": [CALL]}), "id": "chatcmpl-é/" + "x" * 99}
    response = whole(found)
    assert all(len(item["id"]) <= 64 for item in response["output"])
    assert response["id"] == "resp_" + "x" * 48


def test_events_come_in_their_order():
    first = {**CALL, "index": 0, "function": {"name": "find", "arguments": ""}}
    told = checked(streamed(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm"}) + chunk({"content": "so"}),
        chunk({"tool_calls": [first]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        ending("tool_calls"),
    ))  # fmt: skip
    assert [event["type"].removeprefix("response.") for event in told] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]  # fmt: skip
    assert told[0]["response"]["status"] == told[1]["response"]["status"] == "in_progress"
    assert told[2]["item"]["content"] == []


def test_the_first_events_are_not_held_back():
    translator = RESPONSES.translator(read(stream=True))
    assert [e["type"] for e in checked(translator.feed(chunk({"role": "assistant"})))] == [
        "response.created", "response.in_progress",
    ]  # fmt: skip
    assert translator.feed(b'data: {"id":"","model":"","choices":[]}\n\n: ping\n\n') == b""


def test_calls_may_be_told_side_by_side():
    def piece(index: int, arguments: str, **more: Any) -> bytes:
        function = {"arguments": arguments, **more.pop("function", {})}
        return chunk({"tool_calls": [{"index": index, "function": function, **more}]})

    name = {"function": {"name": "find"}}
    told = checked(streamed(
        piece(0, "", id="a", **name), piece(1, "", id="b", **name),
        piece(0, "[1"), piece(1, "[2"), piece(0, "]"), piece(1, "]"), ending("tool_calls"),
    ))  # fmt: skip
    calls = [(i["call_id"], i["arguments"]) for i in told[-1]["response"]["output"]]
    assert calls == [("a", "[1]"), ("b", "[2]")]
    assert [e["output_index"] for e in told if e["type"].endswith("arguments.delta")] == [
        0, 1, 0, 1,
    ]  # fmt: skip


def test_calls_with_one_number_are_told_apart_by_their_ids():
    calls = [chunk({"tool_calls": [{**CALL, "id": id, "index": 0}]}) for id in ("a", "b")]
    output = checked(streamed(*calls, ending()))[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"]) for item in output] == [
        ("a", '{"q":1}'), ("b", '{"q":1}'),
    ]  # fmt: skip


def test_a_call_whose_server_gives_no_id_gets_one():
    call = {"index": 0, "function": {"arguments": "{}"}}
    named = {"index": 0, "function": {"name": "find"}}
    told = checked(
        streamed(chunk({"tool_calls": [call]}), chunk({"tool_calls": [named]}), ending())
    )
    item = told[-1]["response"]["output"][0]
    assert (item["call_id"], item["name"]) == ("call_abc_0", "find")


def test_whoever_thinks_again_begins_a_new_item():
    told = checked(streamed(
        chunk({"reasoning": "a"}), chunk({"content": "b"}), chunk({"tool_calls": [CALL]}),
        chunk({"content": "c"}), chunk({"reasoning": "d"}), ending(),
    ))  # fmt: skip
    kinds = [item["type"] for item in told[-1]["response"]["output"]]
    assert kinds == ["reasoning", "message", "function_call", "message", "reasoning"]


def test_a_stream_that_breaks_off_fails_with_what_was_said():
    translator = RESPONSES.translator(read(stream=True))
    call = {**CALL, "index": 0, "function": {"name": "find", "arguments": '{"q"'}}
    raw = translator.feed(chunk({"content": "so"}) + chunk({"tool_calls": [call]}))
    raw += translator.fail(ProviderError("cut", error_class="stream_cut"))
    told = checked(raw)
    last = told[-1]["response"]
    assert told[-1]["type"] == "response.failed"
    assert last["status"] == "failed"
    assert last["error"] == {
        "code": "server_error", "message": "the provider broke off the stream",
        "type": "stream_cut",
    }  # fmt: skip
    assert [item["status"] for item in last["output"]] == ["completed", "incomplete"]
    assert last["output"][1]["arguments"] == '{"q"'
    done = [event for event in told if event["type"] == "response.output_item.done"]
    assert [event["item"]["type"] for event in done] == ["message"]  # nobody may act on the call
    assert translator.fail(ProviderError("cut", error_class="stream_cut")) == b""
    assert translator.feed(DONE) == b""
    with client(raw).responses.stream(model="m", input="hi") as stream:
        assert [event.type for event in stream][-1] == "response.failed"


def test_a_stream_that_never_began_fails_in_a_form_that_sdks_read():
    raw = RESPONSES.translator(read(stream=True)).fail(ProviderError("x", error_class="overloaded"))
    assert [event["type"] for event in checked(raw)] == [
        "response.created", "response.in_progress", "response.failed",
    ]  # fmt: skip


class Found(BaseModel):
    q: int


def test_the_sdk_parses_structured_text_and_arguments():
    raw = streamed(chunk({"content": '{"q":'}), chunk({"content": "7}"}), ending())
    with client(raw).responses.stream(model="m", input="hi", text_format=Found) as stream:
        assert stream.get_final_response().output_parsed == Found(q=7)
    assert accumulated(raw).output_text == '{"q":7}'


def cut(text: str, cuts: list[int]) -> list[str]:
    """A text in pieces."""
    at = sorted({min(each, len(text)) for each in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(at)]


CUTS = st.lists(st.integers(0, 12), max_size=4)
TEXTS = st.text(max_size=12)
CALLS = st.lists(st.tuples(st.sampled_from(["f", "g"]), TEXTS, CUTS), max_size=3)
REASONS = st.sampled_from(["stop", "length", "content_filter", "tool_calls", None])


@given(TEXTS, TEXTS, TEXTS, CALLS, REASONS, CUTS, CUTS)
def test_a_stream_comes_to_the_same_as_the_whole_answer(
    thought: str, text: str, refusal: str, calls: list[Any], reason: str | None,
    cuts: list[int], blocks: list[int],
) -> None:  # fmt: skip
    tool_calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments, _) in enumerate(calls)
    ]
    message: dict[str, Any] = {"content": text or None, "refusal": refusal or None}
    message |= {"reasoning_content": thought, "tool_calls": tool_calls}
    deltas: list[dict[str, Any]] = [{"reasoning_content": each} for each in cut(thought, cuts)]
    deltas += [{"content": each} for each in cut(text, cuts)]
    deltas += [{"refusal": each} for each in cut(refusal, cuts)]
    for n, (name, arguments, at) in enumerate(calls):
        opening = {"function": {"name": name, "arguments": ""}, "index": n}
        deltas.append({"tool_calls": [{**tool_calls[n], **opening}]})
        deltas += [{"tool_calls": [{"index": n, "function": {"arguments": each}}]}
                   for each in cut(arguments, at)]  # fmt: skip
    chunks = [chunk({"role": "assistant", "content": ""}), *map(chunk, deltas), ending(reason)]
    at = [0, *sorted({min(each, len(chunks)) for each in blocks}), len(chunks)]
    raw = streamed(*(b"".join(chunks[a:b]) for a, b in itertools.pairwise(at)))

    told = checked(raw)
    expected = whole(completion(message, reason))
    assert told[-1]["response"] == expected
    assert gathered(told) == expected["output"]
    if expected["status"] == "completed":
        sdk = accumulated(raw).to_dict(mode="python")
        assert orjson.loads(orjson.dumps(sdk))["usage"] == expected["usage"]


def gathered(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output as it follows from the deltas alone; it must be what the done events say."""
    output: dict[int, dict[str, Any]] = {}
    for event in told:
        kind, at = event["type"].removeprefix("response."), event.get("output_index", -1)
        if kind == "output_item.added":
            assert at == len(output)
            output[at] = event["item"]
        elif kind == "content_part.added":
            output[at]["content"].append(event["part"])
        elif kind == "function_call_arguments.delta":
            output[at]["arguments"] += event["delta"]
        elif kind.endswith(".delta"):
            part = output[at]["content"][event["content_index"]]
            part["refusal" if part["type"] == "refusal" else "text"] += event["delta"]
        elif kind == "content_part.done":
            assert event["part"] == output[at]["content"][event["content_index"]]
        elif kind == "output_item.done":
            output[at]["status"] = event["item"]["status"]
            assert event["item"] == output[at]
    return [output[at] for at in sorted(output)]

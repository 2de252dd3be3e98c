"""Every transcript through the code that will meet its like: requests, answers, streams, faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.transcripts.conftest import Player, chat, relayed
from tests.transcripts.library import (
    DONE,
    Transcript,
    concatenated,
    data_of,
    load,
    raw_events,
    same_chunks,
    same_completion,
    same_messages,
)
from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.answers import to_chat_completion
from tokenhub.dialects.anthropic.requests import to_messages
from tokenhub.dialects.anthropic.streams import ChatStreamMeter, ends_stream, opens_stream
from tokenhub.dialects.anthropic.usage import usage_of
from tokenhub.dialects.sse import events
from tokenhub.domain import Usage
from tokenhub.errors import ProviderError
from tokenhub.providers import anthropic, chat_completions
from tokenhub.providers.base import Meter, Stream

CREATED_SECS = 1_760_000_000
SMALL_BYTES = 1_500
CUTS_MAX = 150
"""Cutting at every position of a long stream takes too long; these many, evenly spread, do."""

ALL = load()
Chosen = Callable[[Transcript], bool]


def each(chosen: Chosen) -> pytest.MarkDecorator:
    params = [pytest.param(each, id=each.name) for each in filter(chosen, ALL)]
    return pytest.mark.parametrize("transcript", params)


def is_translated(transcript: Transcript) -> bool:
    return transcript.provider == "anthropic"


def has(*fields: str, translated: bool | None = None) -> Chosen:
    def chosen(transcript: Transcript) -> bool:
        if translated is not None and is_translated(transcript) != translated:
            return False
        return all(field in transcript for field in fields)

    return chosen


# --- requests -----------------------------------------------------------------------------------


@each(has("request", "wire_request", translated=True))
def test_a_request_means_the_same_in_the_providers_dialect(transcript: Transcript) -> None:
    wire = transcript["wire_request"]
    translated = to_messages(chat(transcript), model=wire["model"])
    body = orjson.loads(orjson.dumps(translated.body))
    assert same_messages(body) == same_messages(wire)
    assert translated.dropped == ()


@each(has("request", "wire_request"))
def test_a_request_reaches_the_provider(transcript: Transcript, player: Player) -> None:
    request, wire = chat(transcript), transcript["wire_request"]
    ask = player.stream if wire.get("stream") else player.send
    try:
        ask(request, wire["model"])
    except ProviderError:
        assert not transcript.has_answer
    sent = json.loads(player.body)
    if is_translated(transcript):
        sent, wire = same_messages(sent), same_messages(wire)
        assert b"x-api-key: sk-provider" in player.head
        assert b"anthropic-version: 2023-06-01" in player.head
    assert sent == wire


# --- whole answers ------------------------------------------------------------------------------


@each(has("answer", "usage", translated=True))
def test_an_answer_means_the_same_in_the_callers_dialect(transcript: Transcript) -> None:
    found = to_chat_completion(transcript["wire_response"], created_at_secs=CREATED_SECS)
    assert same_completion(found) == same_completion(transcript["answer"])
    ChatCompletion.model_validate(found)


@each(has("answer", "usage", translated=True))
def test_usage_has_one_normal_form(transcript: Transcript) -> None:
    message = transcript["wire_response"]
    found = to_chat_completion(message, created_at_secs=CREATED_SECS)
    assert usage_of(message["usage"]) == transcript.usage
    assert openai.usage_of(found) == transcript.usage  # what the caller reads is no other
    told = found["usage"]
    assert told["total_tokens"] == told["prompt_tokens"] + told["completion_tokens"]


@each(has("answer", "usage"))
def test_an_answer_reaches_the_caller(transcript: Transcript, player: Player) -> None:
    answer = player.send(chat(transcript))
    assert answer.usage == transcript.usage
    assert answer.parsed == orjson.loads(answer.body)
    if is_translated(transcript):
        created = {"created": transcript["answer"]["created"]}
        assert same_completion(answer.parsed | created) == same_completion(transcript["answer"])
    else:
        assert answer.body == transcript.wire


# --- streams ------------------------------------------------------------------------------------


class Pieces:
    """A base.Source that gives out what it was given, read by read."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self, longest_secs: float | None = None) -> bytes:
        return next(self._pieces, b"")

    def wait(self, longest_secs: float) -> float:
        return longest_secs

    def close(self) -> None:
        pass


class Told(NamedTuple):
    """What came of a stream."""

    text: str
    error: tuple[str, str] | None
    usage: Usage | None
    finish_reason: str | None
    output_tokens: int


def played(transcript: Transcript, pieces: list[bytes], *, wants_usage: bool = True) -> Told:
    """The stream of a transcript, read in these pieces, without a network."""
    if is_translated(transcript):
        meter: Meter = ChatStreamMeter(
            split=events, wants_usage=wants_usage, created_at_secs=CREATED_SECS
        )
        stream = Stream(
            Pieces(pieces),
            fault_of=anthropic.CHAT.fault_of,
            opens=opens_stream,
            ends=ends_stream,
            meter=meter,
        )
    else:
        meter = openai.StreamMeter(split=events, hide_usage=not wants_usage)
        stream = Stream(
            Pieces(pieces),
            fault_of=chat_completions.CHAT.fault_of,
            opens=openai.opens_stream,
            ends=openai.ends_stream,
            meter=meter,
        )
    text, error = relayed(stream)
    fault = (error.error_class, error.next_step) if error else None
    return Told(text, fault, meter.usage, meter.finish_reason, meter.output_tokens)


def without_usage_chunk(stream: str) -> str:
    """What a caller sees who did not ask for usage."""
    kept = []
    for raw in raw_events(stream):
        data = data_of(raw)
        chunk = json.loads(data) if data and data != DONE else {}
        if not (chunk.get("usage") and not chunk.get("choices")):
            kept.append(raw)
    return "".join(kept)


def expected_error(transcript: Transcript) -> tuple[str, str] | None:
    if "error" not in transcript:
        return None
    error = transcript["error"]
    return error["error_class"], error["next_step"]


@each(has("wire_stream"))
def test_a_stream_adds_up_to_the_same(transcript: Transcript) -> None:
    told = played(transcript, [transcript.wire])
    assert told.error == expected_error(transcript)
    if "chunks" in transcript:
        assert same_chunks(concatenated(told.text)) == same_chunks(transcript["chunks"])
        reason = transcript["chunks"]["choices"][0].get("finish_reason")
        assert told.finish_reason in (reason, None if told.error else reason)
    assert told.error or told.usage == transcript.usage  # of a broken one it is an estimate
    assert told.text.rstrip("\r\n").endswith("data: [DONE]") == (told.error is None)


@each(has("wire_stream", "chunks", translated=True))
def test_every_translated_chunk_is_one_that_the_sdk_knows(transcript: Transcript) -> None:
    told = played(transcript, [transcript.wire])
    chunks = [json.loads(data) for data in map(data_of, raw_events(told.text)) if data != DONE]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [bool(chunk.get("usage")) for chunk in chunks].count(True) == (told.error is None)
    if told.error is None:
        assert chunks[-1]["choices"] == []
        assert openai.usage_of(chunks[-1]) == transcript.usage


@each(has("wire_stream", translated=False))
def test_a_stream_of_the_same_dialect_passes_byte_for_byte(transcript: Transcript) -> None:
    stream = transcript["wire_stream"]
    if "error" in transcript:
        stream = stream[: stream.rindex("data: ", 0, stream.rindex('"error"'))]
    assert played(transcript, [transcript.wire]).text == stream
    hidden = played(transcript, [transcript.wire], wants_usage=False).text
    assert hidden == without_usage_chunk(stream)


@each(has("wire_stream", "chunks", translated=True))
def test_usage_is_hidden_from_a_caller_who_did_not_ask(transcript: Transcript) -> None:
    told = played(transcript, [transcript.wire], wants_usage=False)
    assert '"usage":{' not in told.text
    assert told.error or told.usage == transcript.usage
    assert same_chunks(concatenated(told.text)) == same_chunks(transcript["chunks"])


@each(has("wire_stream", "chunks"))
def test_all_that_was_produced_is_in_the_estimate(transcript: Transcript) -> None:
    """It is what a caller pays for when the stream breaks before it says what it used."""
    told = played(transcript, [transcript.wire])
    assert told.output_tokens * 4 >= produced_bytes(transcript["chunks"])


def produced_bytes(chunks: dict[str, Any]) -> int:
    texts = []
    for choice in chunks["choices"]:
        texts += [choice.get(key, "") for key in ("content", "reasoning_content", "reasoning")]
        texts += [call["name"] + call["arguments"] for call in choice.get("tool_calls", ())]
    return sum(len(text.encode()) for text in texts)


def cuts_of(length: int) -> Iterator[int]:
    step = 1 if length <= SMALL_BYTES else -(-length // CUTS_MAX)
    yield from range(1, length, step)


@each(has("wire_stream"))
def test_wherever_a_stream_is_cut_it_is_the_same(transcript: Transcript) -> None:
    wire = transcript.wire
    whole = played(transcript, [wire])
    assert meaning(played(transcript, [wire[at : at + 1] for at in range(len(wire))])) == meaning(
        whole
    )
    for cut in cuts_of(len(wire)):
        assert meaning(played(transcript, [wire[:cut], wire[cut:]])) == meaning(whole), cut


@given(st.data())
def test_however_the_reads_fall_every_stream_is_the_same(data: st.DataObject) -> None:
    streams = [transcript for transcript in ALL if transcript.is_stream]
    transcript = data.draw(st.sampled_from(streams))
    wire = transcript.wire
    edges = [0, *sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=9))), len(wire)]
    pieces = [wire[start:end] for start, end in pairwise(edges)]
    assert meaning(played(transcript, pieces)) == meaning(played(transcript, [wire]))


def meaning(told: Told) -> tuple[object, ...]:
    """What must not depend on the reads: which read brings the LF of a CR LF does not matter."""
    texts = [data_of(raw) for raw in raw_events(told.text)] if told.text else []
    return [text for text in texts if text], told.error, told.usage, told.finish_reason


@each(has("wire_stream"))
def test_a_stream_reaches_the_caller(transcript: Transcript, player: Player) -> None:
    error: ProviderError | None = None
    text = ""
    try:
        text, error = relayed(player.stream(chat(transcript)))
    except ProviderError as fault:  # at the first event: the gateway may still fail over
        error = fault
        assert "chunks" not in transcript
    assert (error and (error.error_class, error.next_step)) == expected_error(transcript)
    if "chunks" in transcript:
        assert same_chunks(concatenated(text)) == same_chunks(transcript["chunks"])


# --- faults and model lists ---------------------------------------------------------------------


def is_refusal(transcript: Transcript) -> bool:
    return "error" in transcript and not transcript.is_stream and transcript.status != 200


@each(is_refusal)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_judged(transcript: Transcript, player: Player, stream: bool) -> None:
    with pytest.raises(ProviderError) as caught:
        (player.stream if stream else player.send)(chat(transcript))
    error = caught.value
    assert (error.error_class, error.next_step) == expected_error(transcript)
    assert error.retry_after_seconds == transcript["error"].get("retry_after_seconds")
    assert error.status == transcript.status
    if "answer" in transcript:
        told = json.loads(error.body)["error"]
        wanted = transcript["answer"]["error"]
        assert {key: told.get(key) for key in wanted} == wanted
    else:
        assert error.body == b""  # it speaks of our account, not of the caller's request


@each(lambda transcript: has("error", "wire_response")(transcript) and transcript.status == 200)
def test_an_error_within_a_good_status_is_judged(transcript: Transcript, player: Player) -> None:
    with pytest.raises(ProviderError) as caught:
        player.send(chat(transcript))
    assert (caught.value.error_class, caught.value.next_step) == expected_error(transcript)


@each(has("models"))
def test_a_list_of_models_is_read(transcript: Transcript, player: Player) -> None:
    found = [
        {
            "id": model.id,
            "owned_by": model.owned_by,
            "max_context_tokens": model.max_context_tokens,
            "max_output_tokens": model.max_output_tokens,
        }
        for model in player.list_models()
    ]
    assert found == transcript["models"]

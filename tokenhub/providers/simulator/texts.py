"""The simulator where OpenAI and vLLM read texts and not messages: completions and embeddings.

Pure. The wire formats: https://platform.openai.com/docs/api-reference/completions, …/embeddings.
What the two of them have apart from that, each one's dialect knows.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from tokenhub.providers.simulator import content, texts_checks
from tokenhub.providers.simulator.client import Request
from tokenhub.providers.simulator.content import CREATED_AT, Pacing, Question, Reply
from tokenhub.providers.simulator.dialect import Answer, Whole
from tokenhub.providers.simulator.memory import Memory
from tokenhub.providers.simulator.openai import DONE, OpenAI, tokens_of
from tokenhub.providers.simulator.texts_checks import DIMENSIONS

OUTPUT_TOKENS_DEFAULT = 16
LOGPROB = -0.25


@dataclass(slots=True)
class Choice:
    """One continuation of one prompt: the pieces that are sent, a token each."""

    pieces: list[str]
    ending: dict[str, Any]


@dataclass(slots=True)
class Completion:
    """An answer of continued texts."""

    fields: dict[str, Any]
    choices: list[Choice]
    has_logprobs: bool
    usage: dict[str, Any]
    wants_usage: bool
    interval_ms: int
    latency_ms: int

    @property
    def whole(self) -> bytes:
        """The answer in one piece."""
        choices = [
            {**self._said(index, choice.pieces, 0), **choice.ending}
            for index, choice in enumerate(self.choices)
        ]
        return orjson.dumps({**self.fields, "choices": choices, "usage": self.usage})

    @property
    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events, [DONE] included; a piece of text in each."""
        for number in range(max(len(choice.pieces) for choice in self.choices)):
            yield self._event(
                [
                    self._said(index, choice.pieces[number : number + 1], number)
                    for index, choice in enumerate(self.choices)
                    if number < len(choice.pieces)
                ]
            )
        yield self._event(
            [{**self._said(i, [], 0), **choice.ending} for i, choice in enumerate(self.choices)]
        )
        if self.wants_usage:
            yield self._event([], self.usage)
        yield DONE

    @property
    def opening(self) -> bytes:
        """A chunk without text."""
        return self._event([self._said(0, [], 0)])

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        chunk = {**self.fields, "choices": choices}
        if self.wants_usage:
            chunk["usage"] = usage
        return b"data: %b\n\n" % orjson.dumps(chunk)

    def _said(self, index: int, pieces: list[str], start: int) -> dict[str, Any]:
        said = {"text": "".join(pieces), "index": index, "logprobs": None, "finish_reason": None}
        if self.has_logprobs and pieces:
            offset = sum(map(len, self.choices[index].pieces[:start]))
            said["logprobs"] = _logprobs(pieces, offset)
        return said


class AtCompletions(OpenAI):
    """The dialect at /v1/completions."""

    def check(self, request: Request, body: dict[str, Any]) -> None:
        texts_checks.check_completion(body)

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        chunks, interval_ms, latency_ms = content.pace(body["model"], pacing)
        prompts = _texts(body["prompt"])
        replies = [content.reply(_question(prompt, body), chunks) for prompt in prompts]
        first = replies[0]
        written = replace(first, output_tokens=sum(each.output_tokens for each in replies))
        options = body.get("stream_options")
        return Completion(
            fields={
                "id": "cmpl-" + first.digest[:24], "object": "text_completion",
                "created": CREATED_AT, "model": body["model"],
            },
            choices=_choices(prompts, replies, body),
            has_logprobs=body.get("logprobs") is not None,
            usage=self.usage(sum(map(tokens_of, prompts)), written, 0),
            wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
            interval_ms=interval_ms,
            latency_ms=latency_ms,
        )  # fmt: skip


class AtEmbeddings(OpenAI):
    """The dialect at /v1/embeddings."""

    def check(self, request: Request, body: dict[str, Any]) -> None:
        texts_checks.check_embeddings(body)

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        texts = _texts(body["input"])
        length = body.get("dimensions") or DIMENSIONS
        is_base64 = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(text, length, is_base64)}
            for index, text in enumerate(texts)
        ]
        read = sum(map(tokens_of, texts))
        usage = {"prompt_tokens": read, "total_tokens": read}
        said = {"object": "list", "data": data, "model": body["model"], "usage": usage}
        _, _, latency_ms = content.pace(body["model"], pacing)
        return Whole(orjson.dumps(said), latency_ms)


def _texts(given: Any) -> list[str]:
    """The texts; token ids are read as numbers, and as many tokens as there are."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [_spelt(given)]
    return [each if isinstance(each, str) else _spelt(each) for each in given]


def _spelt(ids: list[int]) -> str:
    """Four bytes for each, so that they are counted right."""
    return "".join(f"{each % 1000:3d} " for each in ids)


def _question(prompt: str, body: dict[str, Any]) -> Question:
    limit = body.get("max_tokens")
    stop = body.get("stop") or []
    return Question(
        prompt,
        output_tokens_max=OUTPUT_TOKENS_DEFAULT if limit is None else limit,
        count=min(body.get("best_of") or body.get("n") or 1, 16),
        stops=[stop] if isinstance(stop, str) else [each for each in stop if each],
    )


def _choices(prompts: list[str], replies: list[Reply], body: dict[str, Any]) -> list[Choice]:
    number = body.get("n") or 1
    choices = []
    for prompt, reply in zip(prompts, replies, strict=True):
        ending = "length" if reply.ending == "length" else "stop"
        echoed = [prompt] if body.get("echo") else []
        choices += [
            Choice(echoed + pieces, {"finish_reason": ending}) for pieces in reply.texts[:number]
        ]
    return choices


def _logprobs(pieces: list[str], offset: int) -> dict[str, Any]:
    offsets = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    return {
        "tokens": pieces, "token_logprobs": [LOGPROB] * len(pieces),
        "top_logprobs": [{piece: LOGPROB} for piece in pieces], "text_offset": offsets,
    }  # fmt: skip


def _vector(text: str, length: int, is_base64: bool) -> list[float] | str:
    """A vector of length 1 that follows from the text; a shorter one is its beginning, as with
    models that are trained for that."""
    drawn = hashlib.shake_128(text.encode(errors="replace")).digest(2 * DIMENSIONS)
    vector = np.frombuffer(drawn, dtype="<i2")[:length].astype("<f4")
    vector /= np.linalg.norm(vector) or 1.0
    if is_base64:
        return base64.b64encode(vector.tobytes()).decode()
    floats: list[float] = vector.tolist()
    return floats

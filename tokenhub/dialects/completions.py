"""OpenAI's older completions: a prompt is continued. Read, passed through, and said in chat.

Wire format: https://platform.openai.com/docs/api-reference/completions. Where the provider has no
such endpoint the prompt is a user's message, and what a chat cannot say is refused or told, as
docs/translation.md has it. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.reading import Dropped, flag_at, object_at, text_at, whole_at
from tokenhub.dialects.chat import relayed_error
from tokenhub.dialects.dialect import Dialect, InChat
from tokenhub.dialects.sse import events
from tokenhub.dialects.texts import Texts, read_texts
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest, ProviderError, TokenHubError, Untranslatable

OUTPUT_TOKENS_DEFAULT = 16
"""What the API writes when no limit is given."""

SAME = frozenset({
    "model", "stream", "stream_options", "temperature", "top_p", "n", "stop", "presence_penalty",
    "frequency_penalty", "logit_bias", "user", "seed",
})  # fmt: skip
"""What a chat says in the same words."""
TRANSLATED = SAME | {"prompt", "max_tokens"}

REFUSED: Mapping[str, tuple[Any, ...]] = {
    "prompt_embeds": ([],),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "logprobs": (),
}
"""What no chat can do, with the values, besides null, that ask for nothing."""

PROMPTS_MAX = 2048
"""So many in one request: each has answers of its own, for which money is set aside."""
EMBEDS_CHARS_PER_TOKEN = 1024
"""At least so much base64 has a token that is given as its vector: no model's are smaller than 384
numbers of two bytes."""

FINISH_REASONS = ("stop", "length", "content_filter")
"""Those that both have; a completion that ends by any other has stopped."""


def read_request(raw: bytes) -> ChatRequest:
    """Parse and check a completion request, once.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    body = openai.parse_object(raw)
    model = openai.model_of(body)
    prompts = _read_prompts(body)
    for name, check in _CHECKS.items():
        if body.get(name) is not None:
            check(body[name], name)
    options = body.get("stream_options")
    written = max(int(body.get("n") or 1), int(body.get("best_of") or 1))
    return ChatRequest(
        body=body,
        model=model,
        stream=bool(body.get("stream")),
        input_tokens=prompts.tokens,
        output_tokens_max=max(1, _limit(body)),
        choices=written * prompts.number,
        wants_usage=bool(options and options.get("include_usage")),
        dialect="completions",
    )


def with_output_limit(request: ChatRequest, tokens: int) -> ChatRequest:
    """The same request with an answer of at most `tokens`."""
    return replace(request, body={**request.body, "max_tokens": tokens}, output_tokens_max=tokens)


def to_chat(request: ChatRequest) -> InChat:
    """The prompt as a user's message.

    Raises:
        Untranslatable: a chat cannot be asked for this.
    """
    body, dropped = request.body, Dropped()
    for name, nothing in REFUSED.items():
        asked = body.get(name)
        if asked is not None and asked not in nothing:
            raise Untranslatable(f"{name} cannot be asked of a chat model", param=name)
    limit = _limit(body)
    if not limit:
        raise Untranslatable("a chat model cannot write nothing", param="max_tokens")
    dropped.add_unknown(body, TRANSLATED | REFUSED.keys(), "")
    said = {name: value for name, value in body.items() if name in SAME}
    said |= {"messages": [{"role": "user", "content": _only_text(body)}]}
    said |= {"max_completion_tokens": limit}
    # The stream's usage is always needed; the translator hides it from who has not asked for it.
    chat = replace(request, body=said, dialect="chat", headers={}, wants_usage=True)
    return InChat(chat, dropped.names)


def to_completion(completion: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """A chat completion as a text completion."""
    choices = completion.get("choices")
    said = _said(completion)
    said["choices"] = [_choice(choice) for choice in _objects(choices)]
    if isinstance(completion.get("usage"), dict):
        said["usage"] = completion["usage"]
    return said


class Completions:
    """Chat chunks as completion chunks, as they pass."""

    def __init__(self, request: ChatRequest) -> None:
        self._wants_usage = request.wants_usage

    def feed(self, block: bytes) -> bytes:
        """See dialect.Translator.feed."""
        return b"".join(self._event(data) for _, data in events(block) if data)

    def fail(self, error: ProviderError) -> bytes:
        """See dialect.Translator.fail."""
        return openai.error_event(error)

    def _event(self, data: bytes) -> bytes:
        if openai.ends_stream(data):
            return openai.DONE
        chunk = openai.object_of(data)
        choices = [_piece(choice) for choice in _objects(chunk.get("choices"))]
        choices = [each for each in choices if each["text"] or each["finish_reason"]]
        usage = chunk.get("usage") if self._wants_usage else None
        if not choices and not usage:
            return b""  # who speaks, or a thought
        said = {**_said(chunk), "choices": choices}
        if self._wants_usage:
            said["usage"] = usage
        return b"data: " + orjson.dumps(said) + b"\n\n"


class StreamMeter(openai.StreamMeter):
    """Follows a stream of completions on its way through."""

    def _look_at(self, choice: Any) -> None:
        if not isinstance(choice, dict):
            return
        if isinstance(choice.get("text"), str):
            self._text_bytes += len(choice["text"].encode())
        if choice.get("finish_reason"):
            self._finish_reason = choice["finish_reason"]


def opens_stream(data: bytes) -> bool:
    """Whether an event has nothing of an answer in it yet."""
    chunk = openai.object_of(data)
    choices = chunk.get("choices")
    if not isinstance(choices, list) or chunk.get("usage"):
        return False
    return not any(each.get("text") or each.get("finish_reason") for each in _objects(choices))


def _error_body(error: TokenHubError, request_id: str) -> dict[str, Any]:
    return openai.error_body(error)


def _limit(body: Mapping[str, Any]) -> int:
    limit = body.get("max_tokens")
    return OUTPUT_TOKENS_DEFAULT if limit is None else int(limit)


def _read_prompts(body: Mapping[str, Any]) -> Texts:
    """The prompts, of which vLLM takes some as vectors."""
    embeds = body.get("prompt_embeds")
    given = [] if embeds is None else embeds if isinstance(embeds, list) else [embeds]
    if not all(isinstance(each, str) for each in given):
        raise InvalidRequest(
            "prompt_embeds must be a string or an array of strings", param="prompt_embeds"
        )
    if body.get("prompt") is None and not given:
        raise InvalidRequest("prompt is required", param="prompt")
    prompt = body.get("prompt")
    texts = Texts(0, 0) if prompt is None else read_texts(prompt, "prompt")
    tokens = sum(-(-len(each) // EMBEDS_CHARS_PER_TOKEN) for each in given)
    found = Texts(texts.number + len(given), texts.tokens + tokens)
    if found.number > PROMPTS_MAX:
        raise InvalidRequest(f"prompt must have {PROMPTS_MAX} elements at most", param="prompt")
    return found


def _only_text(body: Mapping[str, Any]) -> str:
    """The prompt, if it is one text."""
    prompt = body["prompt"]
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise Untranslatable("a chat model takes one prompt, as text", param="prompt")
    return prompt


def _said(chat: Mapping[str, Any]) -> dict[str, Any]:
    """What a completion and a chunk of it have in common with those of a chat."""
    id_ = chat.get("id")
    return {
        "id": "cmpl-" + (id_ if isinstance(id_, str) else "").removeprefix("chatcmpl-"),
        "object": "text_completion",
        "created": chat.get("created"),
        "model": chat.get("model"),
        **{n: chat[n] for n in ("system_fingerprint", "service_tier") if chat.get(n)},
    }


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    said = _piece({**choice, "delta": choice.get("message")})
    return {**said, "finish_reason": said["finish_reason"] or "stop"}


def _piece(choice: dict[str, Any]) -> dict[str, Any]:
    delta, reason = choice.get("delta"), choice.get("finish_reason")
    delta = delta if isinstance(delta, dict) else {}
    text = delta.get("content") or delta.get("refusal")
    return {
        "text": text if isinstance(text, str) else "",
        "index": choice.get("index", 0),
        "logprobs": None,
        "finish_reason": reason if reason in FINISH_REASONS or not reason else "stop",
    }


def _objects(values: Any) -> list[dict[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


def _check_number(value: Any, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{path} must be a number", param=path)


def _check_count(value: Any, path: str) -> None:
    if whole_at(value, path, 1) > openai.CHOICES_MAX:
        raise InvalidRequest(f"{path} must be {openai.CHOICES_MAX} at most", param=path)


def _check_natural(value: Any, path: str) -> None:
    whole_at(value, path, 0)


def _check_seed(value: Any, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{path} must be a whole number", param=path)


def _check_stop(value: Any, path: str) -> None:
    stops = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in stops):
        raise InvalidRequest(f"{path} must be a string or an array of strings", param=path)


_CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    "stream": flag_at,
    "stream_options": object_at,
    "max_tokens": _check_natural,
    "temperature": _check_number,
    "top_p": _check_number,
    "n": _check_count,
    "best_of": _check_count,
    "logprobs": _check_natural,
    "echo": flag_at,
    "suffix": text_at,
    "stop": _check_stop,
    "presence_penalty": _check_number,
    "frequency_penalty": _check_number,
    "logit_bias": object_at,
    "user": text_at,
    "seed": _check_seed,
}

COMPLETIONS = Dialect(
    name="completions",
    read=read_request,
    limit_output=with_output_limit,
    to_chat=to_chat,
    answer=to_completion,
    translator=Completions,
    error_body=_error_body,
    relayed_error=relayed_error,
)

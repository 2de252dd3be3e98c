"""OpenAI's embeddings: texts in, vectors out, past us as they are.

Wire format: https://platform.openai.com/docs/api-reference/embeddings. No chat can make vectors,
so nothing is translated: who has no such endpoint is not asked. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.reading import text_at, whole_at, word_at
from tokenhub.dialects.chat import relayed_error
from tokenhub.dialects.dialect import Dialect, InChat
from tokenhub.dialects.texts import read_texts
from tokenhub.domain import ChatRequest, Usage
from tokenhub.errors import InvalidRequest, TokenHubError, Untranslatable

FORMATS = ("float", "base64")
"""Those whose answer is JSON; vLLM's `bytes` and `bytes_only` are not, nor do they tell the usage
where others do."""


def read_request(raw: bytes) -> ChatRequest:
    """Parse and check a request for embeddings, once. Nothing is written, so there is no output
    to reserve money for: no choices, and none of their tokens.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    body = openai.parse_object(raw)
    model = openai.model_of(body)
    if body.get("input") is None:
        raise InvalidRequest("input is required", param="input")
    texts = read_texts(body["input"], "input")
    if body.get("encoding_format") is not None:
        word_at(body["encoding_format"], "encoding_format", FORMATS)
    if body.get("dimensions") is not None:
        whole_at(body["dimensions"], "dimensions", 1)
    if body.get("user") is not None:
        text_at(body["user"], "user")
    if body.get("stream"):
        raise InvalidRequest("embeddings are not streamed", param="stream")
    return ChatRequest(
        body=body,
        model=model,
        stream=False,
        input_tokens=texts.tokens,
        output_tokens_max=0,
        choices=0,
        dialect="embeddings",
        needs=frozenset({"embeddings"}),
    )


def is_answer(payload: Mapping[str, Any]) -> bool:
    """Whether it holds vectors, one at least: every request asks for some."""
    return isinstance(payload.get("data"), list) and bool(payload["data"])


def usage_of(payload: Mapping[str, Any]) -> Usage | None:
    """The tokens that were read; some servers only give their total, which is the same."""
    usage = payload.get("usage")
    read = openai.count_of(usage, "prompt_tokens") or openai.count_of(usage, "total_tokens")
    return Usage(input_tokens=read) if read else None


def _as_it_is(request: ChatRequest, tokens: int) -> ChatRequest:
    return request


def _to_chat(request: ChatRequest) -> InChat:
    raise Untranslatable("this model's provider makes no embeddings", param="model")


def _answer(completion: dict[str, Any], request: ChatRequest) -> NoReturn:
    raise _never()


def _translator(request: ChatRequest) -> NoReturn:
    raise _never()


def _never() -> AssertionError:
    return AssertionError("embeddings are never asked of a chat model")


def _error_body(error: TokenHubError, request_id: str) -> dict[str, Any]:
    return openai.error_body(error)


EMBEDDINGS = Dialect(
    name="embeddings",
    read=read_request,
    limit_output=_as_it_is,
    to_chat=_to_chat,
    answer=_answer,
    translator=_translator,
    error_body=_error_body,
    relayed_error=relayed_error,
)

"""The OpenAI wires: chat, which vLLM and most other providers speak too, and its older neighbours.

Requests pass as they came, but for the model's name and the stream's usage; answers pass as bytes.
Wire formats: https://platform.openai.com/docs/api-reference/chat, …/completions, …/embeddings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from tokenhub.dialects import completions, embeddings
from tokenhub.dialects.dialect import InChat
from tokenhub.dialects.messages import without_effort
from tokenhub.dialects.openai import StreamMeter, ends_stream, opens_stream, usage_of
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Meter, Target
from tokenhub.providers.calls import key_line
from tokenhub.providers.responses import RESPONSES
from tokenhub.providers.wired import WiredAdapter
from tokenhub.providers.wires import Payload, Said, Wire, as_it_came

_EFFORT = b"reasoning_effort"


def reports_error(payload: Payload) -> bool:
    """Whether it is an error: an object of that name, or as older vLLM servers put it."""
    return bool(payload.get("error")) or payload.get("object") == "error"


def _say(request: ChatRequest, model: str, stream: bool) -> Said:
    """The usage of a stream is always asked for."""
    body = {**request.body, "model": model}
    if not stream:
        if body.pop("stream", None):
            body.pop("stream_options", None)  # refused where nothing is streamed
        return Said(body)
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    body["stream"] = True
    body["stream_options"] = {**options, "include_usage": True}
    return Said(body)


def _has_choices(payload: Payload) -> bool:
    return bool(payload.get("choices"))


def _is_answer(payload: Payload) -> bool:
    return isinstance(payload.get("choices"), list)


def _meter(request: ChatRequest) -> Meter:
    return StreamMeter(split=events, hide_usage=not request.wants_usage)


def _completions_meter(request: ChatRequest) -> Meter:
    return completions.StreamMeter(split=events, hide_usage=not request.wants_usage)


CHAT = Wire(
    dialect="chat",
    path="/v1/chat/completions",
    is_answer=_is_answer,
    reports_error=reports_error,
    has_answer=_has_choices,
    usage_of=usage_of,
    opens=opens_stream,
    ends=ends_stream,
    meter=_meter,
    mark=b"[DONE]",
    say=_say,
)
COMPLETIONS = replace(
    CHAT,
    dialect="completions",
    path="/v1/completions",
    opens=completions.opens_stream,
    meter=_completions_meter,
)
EMBEDDINGS = replace(  # what it has of a stream is never asked for
    CHAT,
    dialect="embeddings",
    path="/v1/embeddings",
    is_answer=embeddings.is_answer,
    reports_error=reports_error,
    usage_of=embeddings.usage_of,
    say=as_it_came,
)


class ChatCompletions(WiredAdapter):
    """An adapter for providers whose own dialect is OpenAI's."""

    wires: ClassVar = {
        "chat": CHAT,
        "completions": COMPLETIONS,
        "embeddings": EMBEDDINGS,
        "responses": RESPONSES,
    }
    speaks: ClassVar = frozenset({"chat", "embeddings"})

    def head(self, target: Target, request: ChatRequest | None = None) -> bytes:
        """The key's line, if there is a key."""
        if not target.api_key:
            return b""
        return key_line(b"Authorization", "Bearer " + target.api_key)

    def find_milder(
        self, error: ProviderError, request: ChatRequest, said: ChatRequest
    ) -> InChat | None:
        """See WiredAdapter.find_milder. Anthropic's callers say how much to think to every model;
        OpenAI's that do not think refuse to be told, and so do others the words they do not know.
        """
        if request.dialect != "messages" or error.status != 400 or _EFFORT not in error.body:
            return None
        return without_effort(request, said)

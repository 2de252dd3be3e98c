"""A chat's stream of chunks as the named events of a response, numbered from 0.

Each piece is told as it comes; what was said is told once more when it is done. Format:
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from typing import Any

import orjson

from tokenhub.dialects import openai
from tokenhub.dialects.responses.answers import (
    base_of,
    begun,
    cut_by,
    ended,
    logprobs_of,
    to_usage,
    write,
)
from tokenhub.dialects.responses.draft import Draft
from tokenhub.dialects.responses.tools import custom_names
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError

BROKEN = "the provider broke off the stream"


class ResponseEvents:
    """Translates a stream; see dialect.Translator."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._out: list[bytes] = []
        self._number = 0
        self._response: dict[str, Any] = {}  # {} until the first chunk that says something
        self._draft: Draft | None = None
        self._told: dict[str, Any] = {}  # of tier and usage
        self._reason: Any = None
        self._is_over = False

    def feed(self, block: bytes) -> bytes:
        """See dialect.Translator.feed."""
        for _, data in events(block):
            if data:
                self._read(data)
        return self._taken()

    def fail(self, error: ProviderError) -> bytes:
        """See dialect.Translator.fail. What was open stays open: nobody must take a call whose
        arguments are cut for one that is done. The response has all of it, as incomplete."""
        if self._is_over:
            return b""
        self._is_over = True
        draft = self._draft or self._begin({})
        response = {
            **self._response,
            "status": "failed",
            "error": {"code": "server_error", "message": BROKEN, "type": error.error_class},
            "output": draft.output,
            "usage": to_usage(self._told),
        }
        self._tell("response.failed", {"response": response})
        return self._taken()

    def _read(self, data: bytes) -> None:
        if openai.ends_stream(data):
            self._end()
            return
        chunk = openai.object_of(data)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) and not chunk.get("usage"):
            return  # a prompt's filter results: they come before the model's name
        draft = self._draft or self._begin(chunk)
        for name in ("service_tier", "usage"):
            if chunk.get(name):
                self._told[name] = chunk[name]
        if not isinstance(choice, dict):
            return
        if isinstance(choice.get("delta"), dict):
            write(draft, choice["delta"], logprobs_of(choice))
        self._reason = choice.get("finish_reason") or self._reason

    def _begin(self, chunk: dict[str, Any]) -> Draft:
        self._draft = Draft(base_of(chunk), self._tell, custom_names(self._request.body))
        self._response = begun(chunk, self._request)
        self._tell("response.created", {"response": self._response})
        self._tell("response.in_progress", {"response": self._response})
        return self._draft

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        draft = self._draft or self._begin({})
        output = draft.finish(is_complete=cut_by(self._reason) is None)
        response = {**self._response, **ended(self._told, self._reason, output)}
        self._tell(f"response.{response['status']}", {"response": response})

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event)))
        self._number += 1

    def _taken(self) -> bytes:
        taken = b"".join(self._out)
        self._out.clear()
        return taken

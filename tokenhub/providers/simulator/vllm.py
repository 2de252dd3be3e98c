"""The simulator as vLLM: OpenAI's dialect with vLLM's errors, model list and further fields.

Wire formats from vLLM's vllm/entrypoints/openai: two generations of the error envelope, of the
wording of an overflow and of the field for reasoning, all of which are in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import orjson

from tokenhub.providers.simulator.client import Request
from tokenhub.providers.simulator.content import CREATED_AT, Pacing, Reply
from tokenhub.providers.simulator.dialect import Answer
from tokenhub.providers.simulator.errors import Refused, vllm_envelope, vllm_flat_envelope
from tokenhub.providers.simulator.memory import Memory
from tokenhub.providers.simulator.openai import DONE, Chat, OpenAI, is_reasoner

CONTEXT_TOKENS = 32_768
REASONING_FIELDS = {"sim-reasoning": "reasoning"}
"""Newer versions say `reasoning`, for which the model of that name stands."""


class VllmChat(Chat):
    """An answer as vLLM writes it."""

    __slots__ = ()

    def message(self, pieces: list[str]) -> dict[str, Any]:
        message = super().message(pieces)
        message.setdefault("tool_calls", [])
        message[self._reasoning_field] = "".join(self._thought) or None
        return message

    def ended(self) -> dict[str, Any]:
        return {"finish_reason": self.finish_reason, "stop_reason": self.reply.stopped_by}

    def tail(self) -> dict[str, Any]:
        return {"prompt_logprobs": None, "kv_transfer_params": None}

    def thought_deltas(self) -> Iterator[dict[str, Any]]:
        return ({self._reasoning_field: piece} for piece in self._thought)

    @property
    def _reasoning_field(self) -> str:
        return REASONING_FIELDS.get(self.model, "reasoning_content")

    @property
    def _thought(self) -> list[str]:
        return self.reply.thought if is_reasoner(self.model) else []


class Vllm(OpenAI):
    """vLLM's dialect, of the present or (`is_old`) before version 0.10, at its chat endpoint."""

    is_old: ClassVar[bool] = False

    def __init__(self, request_id: str) -> None:
        self.extra = ""

    def authenticate(self, request: Request, api_key: str) -> None:
        if api_key and request.headers.get("authorization") != f"Bearer {api_key}":
            raise Refused("Unauthorized", status=401)

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        return self._answer(body, pacing, memory, VllmChat)

    def error(self, refused: Refused) -> bytes:
        if refused.status == 401:  # comes from the middleware, which has a shape of its own
            return b'{"error":"Unauthorized"}'
        return vllm_flat_envelope(refused) if self.is_old else vllm_envelope(refused)

    def error_event(self, refused: Refused) -> bytes:
        return b"data: %b\n\n" % self.error(refused) + DONE  # vLLM ends the stream all the same

    def overflow(self, context_tokens: int, input_tokens: int, asked_tokens: int) -> Refused:
        model = f"This model's maximum context length is {context_tokens} tokens"
        if self.is_old:
            said = super().overflow(context_tokens, input_tokens, asked_tokens).message
        elif asked_tokens:
            said = (
                f"'max_tokens' or 'max_completion_tokens' is too large: {asked_tokens}. {model} "
                f"and your request has {input_tokens} input tokens "
                f"({asked_tokens} > {context_tokens} - {input_tokens})."
            )
        else:
            said = (
                f"{model}. However, your request has {input_tokens} input tokens. Please reduce "
                "the length of the input messages."
            )
        return Refused(said)

    def refusal(self, fault: str) -> Refused:
        if fault == "context":
            return self.overflow(CONTEXT_TOKENS, CONTEXT_TOKENS + 1000, 0)
        return super().refusal(fault)

    def usage(self, read: int, reply: Reply, cached: int) -> dict[str, Any]:
        written = reply.output_tokens
        return {
            "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": cached} if cached else None,
        }  # fmt: skip

    def models(self, models: list[dict[str, Any]]) -> bytes:
        data = [
            {
                "object": "model", "created": CREATED_AT, "owned_by": "vllm", "root": each["id"],
                "parent": None, "max_model_len": CONTEXT_TOKENS, **each,
            }
            for each in models
        ]  # fmt: skip
        return orjson.dumps({"object": "list", "data": data})

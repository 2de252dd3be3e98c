"""vLLM's OpenAI-compatible server: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.

OpenAI's wires, completions always among them, often without a key. Its errors come in two shapes,
both read by errors.py: fields at the top of the body (older versions) or in an `error` object, with
the HTTP status as `code`. Which of several endpoints is called is decided by whoever makes the
Target.
"""

from __future__ import annotations

from typing import ClassVar

from tokenhub.providers.chat_completions import ChatCompletions


class VllmAdapter(ChatCompletions):
    """OpenAI's wires, checked at an address of its own that answers while the engine lives."""

    health_path = "/health"
    speaks: ClassVar = frozenset({"chat", "completions", "embeddings"})

"""OpenAI, and whoever calls itself compatible with it."""

from __future__ import annotations

from tokenhub.providers.chat_completions import ChatCompletions


class OpenAIAdapter(ChatCompletions):
    """OpenAI's wires as they are, checked by listing the models. Completions are only asked of
    the models that are known for them."""

"""Which dialect the simulator speaks where: every provider's endpoints, by their paths.

Knows nothing of connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from tokenhub.providers.simulator.anthropic import Anthropic, AnthropicCount
from tokenhub.providers.simulator.dialect import Dialect
from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.openai import OpenAI
from tokenhub.providers.simulator.responses import AtResponses
from tokenhub.providers.simulator.texts import AtCompletions, AtEmbeddings
from tokenhub.providers.simulator.vllm import Vllm

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, RESPONSES = "/v1/embeddings", "/v1/responses"
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
ASKED = (CHAT, MESSAGES, COUNT, COMPLETIONS, EMBEDDINGS, RESPONSES)
"""Where models are asked, and with POST."""


class VllmOld(Vllm):
    """vLLM's before version 0.10."""

    is_old: ClassVar[bool] = True


class _OldWords(OpenAI):
    """OpenAI where it says `prompt`, and not `messages`."""

    def overflow(self, context_tokens: int, input_tokens: int, asked_tokens: int) -> Refused:
        return Refused(
            f"This model's maximum context length is {context_tokens} tokens, however you "
            f"requested {input_tokens + asked_tokens} tokens ({input_tokens} in your prompt; "
            f"{asked_tokens} for the completion). Please reduce your prompt; or completion length.",
        )  # fmt: skip


class OpenAICompletions(AtCompletions, _OldWords):
    """OpenAI's completions."""


class OpenAIEmbeddings(AtEmbeddings, _OldWords):
    """OpenAI's embeddings."""


class OpenAIResponses(AtResponses, OpenAI):
    """OpenAI's responses."""

    def overflow(self, context_tokens: int, input_tokens: int, asked_tokens: int) -> Refused:
        return Refused(
            "Your input exceeds the context window of this model. Please adjust your input and "
            "try again.", openai_code="context_length_exceeded", param="input",
        )  # fmt: skip


class VllmCompletions(AtCompletions, Vllm):
    """vLLM's completions."""


class VllmEmbeddings(AtEmbeddings, Vllm):
    """vLLM's embeddings."""


class VllmResponses(AtResponses, Vllm):
    """vLLM's responses."""


class VllmOldCompletions(AtCompletions, VllmOld):
    """The completions of an old vLLM."""


class VllmOldEmbeddings(AtEmbeddings, VllmOld):
    """The embeddings of an old vLLM."""


class VllmOldResponses(AtResponses, VllmOld):
    """The responses of an old vLLM."""


_OPENAI: Mapping[str, Callable[[str], Dialect]] = {
    CHAT: OpenAI,
    COMPLETIONS: OpenAICompletions,
    EMBEDDINGS: OpenAIEmbeddings,
    RESPONSES: OpenAIResponses,
}
_VLLM: Mapping[str, Callable[[str], Dialect]] = {
    CHAT: Vllm,
    COMPLETIONS: VllmCompletions,
    EMBEDDINGS: VllmEmbeddings,
    RESPONSES: VllmResponses,
}
_VLLM_OLD: Mapping[str, Callable[[str], Dialect]] = {
    CHAT: VllmOld,
    COMPLETIONS: VllmOldCompletions,
    EMBEDDINGS: VllmOldEmbeddings,
    RESPONSES: VllmOldResponses,
}
_ANTHROPIC: Mapping[str, Callable[[str], Dialect]] = {MESSAGES: Anthropic, COUNT: AnthropicCount}
_BY_NAME = {"openai": _OPENAI, "vllm": _VLLM, "vllm-old": _VLLM_OLD}


def spoken(name: str, path: str, number: int) -> Dialect:
    """The dialect at a path; elsewhere it is that of the chats.

    Args:
        name: of controls.DIALECTS, for the paths that OpenAI and vLLM both have.
        number: of the request, which its id is made from.
    """
    if path in _ANTHROPIC:
        return _ANTHROPIC[path](f"req_{number:020d}")
    at = _BY_NAME[name]
    return at.get(path, at[CHAT])(f"req_{number:032x}")

"""What well-known models can do, by their names: a start for whoever registers a model.

Pure: a table and a lookup. What is said here is a suggestion that the operator can change; where
the published tables disagree, or where it depends on whoever hosts the model, it says nothing (0).
Knows no provider: the same name means the same model everywhere.

Sources, read in July 2026:
https://developers.openai.com/api/docs/models, https://platform.claude.com/docs/en/models/overview,
https://ai.google.dev/gemini-api/docs/models, https://docs.mistral.ai/getting-started/models and
the model cards of open models at https://huggingface.co.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from tokenhub.domain import Model


class Known(NamedTuple):
    """What is known of a model.

    Args:
        capabilities: words of domain.CAPABILITIES; empty = nothing that we route: it makes
            images or speech, or answers on endpoints that we do not call.
        max_context_tokens, max_output_tokens: 0 = unknown.
    """

    capabilities: tuple[str, ...]
    max_context_tokens: int = 0
    max_output_tokens: int = 0


Row = tuple[str, str, int, int]
"""A regular expression for the whole name, capabilities, context and output limit in tokens."""

_ALL = "chat vision tools json"
_TEXT = "chat tools json"
_SEES = "chat vision tools"
_TOOLS = "chat tools"
_JSON = "chat json"
_VECTORS = "embeddings"

# `json` is what can be held to a JSON schema; a mode that only promises some JSON is not enough.
_HOSTED: tuple[Row, ...] = (
    # OpenAI
    (r"gpt-5(\.[123])?-chat", "chat vision json", 128_000, 16_384),
    (r"gpt-5(-mini|-nano)?|gpt-5\.[12]|gpt-5\.4-(mini|nano)", _ALL, 400_000, 128_000),
    (r"gpt-5\.[45]", _ALL, 1_050_000, 128_000),
    (r"gpt-5\.6(-sol|-terra|-luna)?", _ALL, 1_050_000, 128_000),
    (r"gpt-4\.1(-mini|-nano)?", _ALL, 1_047_576, 32_768),
    (r"gpt-4o-2024-05-13", _SEES, 128_000, 4_096),
    (r"gpt-4o(-mini)?", _ALL, 128_000, 16_384),
    (r"chatgpt-4o", "chat vision", 128_000, 16_384),
    (r"gpt-4-(1106|0125|turbo)-preview", _TOOLS, 128_000, 4_096),
    (r"gpt-4-turbo", _SEES, 128_000, 4_096),
    (r"gpt-4(-0613)?", _TOOLS, 8_192, 8_192),
    (r"gpt-3\.5-turbo(-1106|-0125)?", _TOOLS, 16_385, 4_096),
    (r"o1|o3|o4-mini", _ALL, 200_000, 100_000),
    (r"o3-mini", _TEXT, 200_000, 100_000),
    (r"text-embedding-(3-small|3-large|ada-002)", _VECTORS, 8_192, 0),
    (r"gpt-3\.5-turbo-instruct(-0914)?", "completions", 4_096, 4_096),
    (r"(babbage|davinci)-002", "completions", 16_384, 16_384),
    (r"gpt-.*-(audio|realtime|transcribe|tts|codex|pro|instruct|image)(-.*)?", "", 0, 0),
    (r"o[134].*-(pro|deep-research)|gpt-(audio|realtime|image)(-.*)?|chatgpt-image", "", 0, 0),
    (r"(dall-e|whisper|tts|sora|codex|computer-use)-.*|.*-moderation", "", 0, 0),
    # Anthropic; `json` where it has structured outputs
    (r"claude-(opus-5|sonnet-5|fable-5([.-]1)?|opus-4[.-][678])", _ALL, 1_000_000, 128_000),
    (r"claude-sonnet-4[.-]6", _ALL, 1_000_000, 64_000),
    (r"claude-(opus|sonnet|haiku)-4[.-]5", _ALL, 200_000, 64_000),
    (r"claude-opus-4[.-]1", _ALL, 200_000, 32_000),
    (r"claude-opus-4(-0)?", _SEES, 200_000, 32_000),
    (r"claude-sonnet-4(-0)?|claude-3[.-]7-sonnet", _SEES, 200_000, 64_000),
    (r"claude-3[.-]5-(sonnet|haiku)", _SEES, 200_000, 8_192),
    (r"claude-3-(opus|sonnet|haiku)", _SEES, 200_000, 4_096),
    # Google
    (r"gemini-(2\.5|3(\.\d)?)-(pro|flash|flash-lite)(-preview(-\d\d-\d{4})?)?",
     _ALL, 1_048_576, 65_536),
    (r"gemini-2\.0-flash(-lite)?(-001)?", _ALL, 1_048_576, 8_192),
    (r"gemini-embedding-001", _VECTORS, 2_048, 0),
    # Mistral; its aliases move from version to version
    (r"mistral-large-2411", _TEXT, 131_072, 0),
    (r"mistral-large-2512|mistral-medium-(2508|2604)", _ALL, 262_144, 0),
    (r"mistral-(medium|small)(-\d{4})?|pixtral-(12b|large)(-\d{4})?", _ALL, 0, 0),
    (r"(mistral-large|ministral-.*|codestral|devstral-.*|magistral-.*)(-\d{4})?", _TEXT, 0, 0),
    (r"mistral-embed|codestral-embed", _VECTORS, 8_192, 0),
    # DeepSeek
    (r"deepseek-(chat|reasoner)", _TOOLS, 0, 0),
    (r"deepseek-v4-(flash|pro)", _TOOLS, 1_000_000, 0),
    # too small for images, unlike the rest of its family below
    (r"gemma-?3-1b(-it)?", _JSON, 32_768, 0),
    # our simulator
    (r"sim-(fast|cheap|smart)", _ALL, 0, 0),
)  # fmt: skip

# The name without size and packaging. Their servers constrain the output, so nearly all can `json`.
# How much context there is depends on the server: here stands what the model was made for.
_OPEN: tuple[Row, ...] = (
    (r"gpt-oss", _TEXT, 131_072, 131_072),
    (r"(meta-)?llama-?3\.2-vision", _ALL, 131_072, 0),
    (r"(meta-)?llama-?3\.[123]", _TEXT, 131_072, 0),
    (r"(meta-)?llama-?3", _JSON, 8_192, 0),
    (r"llama-?2", _JSON, 4_096, 0),
    (r"llama-?4-scout", _ALL, 10_485_760, 0),
    (r"llama-?4-maverick", _ALL, 1_048_576, 0),
    (r"qwen-?3-coder(-next)?|qwen-?3-next", _TEXT, 262_144, 0),
    (r"qwen-?3-vl(-thinking)?", _ALL, 262_144, 0),
    (r"qwen-?3(-thinking)?|qwen-?2\.5(-coder)?|qwq", _TEXT, 0, 0),
    (r"qwen-?2(\.5)?-vl", "chat vision json", 0, 0),
    (r"qwen-?3-embedding", _VECTORS, 32_768, 0),
    (r"mistral-nemo|ministral", _TEXT, 131_072, 0),
    (r"mistral-small-3\.[12]", _ALL, 131_072, 0),
    (r"mistral-small(-3)?", _TEXT, 32_768, 0),
    (r"mistral", _JSON, 32_768, 0),
    (r"mixtral-8x22b", _TEXT, 65_536, 0),
    (r"mixtral-8x7b", _JSON, 32_768, 0),
    (r"gemma-?3n", _JSON, 32_768, 0),
    (r"gemma-?3", "chat vision json", 131_072, 0),
    (r"gemma-?2", _JSON, 8_192, 0),
    (r"phi-?4", _JSON, 16_384, 0),
    (r"phi-?4-mini", _TEXT, 131_072, 0),
    (r"deepseek-v3(\.[12])?", _TEXT, 0, 0),
    (r"deepseek-r1(-distill-(llama|qwen))?", _JSON, 0, 0),
    (r"kimi-k2|glm-4\.[567](-air)?", _TEXT, 0, 0),
    (r"(bge|e5|gte|multilingual-e5|all-minilm|jina-embeddings)-.*", _VECTORS, 0, 0),
    (r"nomic-embed-text.*|mxbai-embed.*|snowflake-arctic-embed.*", _VECTORS, 0, 0),
)  # fmt: skip


def _compiled(rows: tuple[Row, ...]) -> tuple[tuple[re.Pattern[str], Known], ...]:
    return tuple(
        (re.compile(name), Known(tuple(words.split()), context, output))
        for name, words, context, output in rows
    )


_HOSTED_ROWS = _compiled(_HOSTED)
_OPEN_ROWS = _compiled(_OPEN)

NAME_CHARS_MAX = 200
_VENDOR = re.compile(r"(?:(?:us|eu|apac|global)\.)?(?:anthropic|openai|meta|mistral|deepseek)\.")
_VERSION = re.compile(r"-(?:latest|\d{4}-\d\d-\d\d|20\d{6}|v\d+(?:-\d+)?)$")
_PACKAGING = re.compile(
    r"-(?:v?\d{4}|v0\.\d|\d+(?:\.\d+)?[bm]|a\d+(?:\.\d+)?b|e\d+b|\d+e|instruct|it|chat|hf|free"
    r"|fp8|fp16|bf16|int4|int8|awq|gptq|gguf|mlx|bnb|\dbit|w\d+a\d+|nvfp4|mxfp4|dynamic"
    r"|q\d(?:-[0-9ksml]+)*|instant|versatile|turbo|latest)(?=-|$)"
)


def known(name: str) -> Known | None:
    """What is known of a model, or None when the name says nothing.

    Args:
        name: as the provider calls it. The organisation before it (`openai/gpt-4o`), a date or
            version after it, and of open models also size and packaging
            (`Llama-3.1-8B-Instruct-FP8`, `llama3.1:8b`) make no difference.
    """
    if len(name) > NAME_CHARS_MAX:
        return None
    plain = re.sub(r"[:@_\s]", "-", name.strip().lower().rpartition("/")[2])
    plain = _VENDOR.sub("", plain, count=1)
    undated = _without_version(plain)
    return (
        _find(plain, _HOSTED_ROWS)
        or _find(undated, _HOSTED_ROWS)
        or _find(_PACKAGING.sub("", plain), _OPEN_ROWS)
    )


def new_model(model_id: str, provider_id: str, upstream_model: str = "") -> Model:
    """A model as it is registered when nobody says more: with what is known by its name.

    Args:
        upstream_model: the provider's name for it; "" = our id.
    """
    model = Model(model_id, provider_id, upstream_model or model_id)
    found = known(model.upstream_model)
    return replace(model, **found._asdict()) if found else model


def _without_version(name: str) -> str:
    while (shorter := _VERSION.sub("", name)) != name:
        name = shorter
    return name


def _find(name: str, rows: tuple[tuple[re.Pattern[str], Known], ...]) -> Known | None:
    return next((found for pattern, found in rows if pattern.fullmatch(name)), None)

"""What is known of models by their names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub import capabilities, discovery
from tokenhub.capabilities import Known, known
from tokenhub.domain import CAPABILITIES
from tokenhub.providers.base import ModelListing
from tokenhub.providers.simulator.content import MODELS

ALL = ("chat", "vision", "tools", "json")
TEXT = ("chat", "tools", "json")
SEES = ("chat", "vision", "tools")
GPT_4O = Known(ALL, 128_000, 16_384)
LLAMA = Known(TEXT, 131_072, 0)
NOTHING = Known((), 0, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o", GPT_4O),
        ("openai/gpt-4o", GPT_4O),
        ("GPT-4o-2024-11-20", GPT_4O),
        ("gpt-4o-mini-2024-07-18", GPT_4O),
        ("gpt-4o-2024-05-13", Known(SEES, 128_000, 4_096)),
        ("gpt-4.1-nano", Known(ALL, 1_047_576, 32_768)),
        ("gpt-4-turbo-2024-04-09", Known(SEES, 128_000, 4_096)),
        ("gpt-4-0125-preview", Known(("chat", "tools"), 128_000, 4_096)),
        ("gpt-4", Known(("chat", "tools"), 8_192, 8_192)),
        ("gpt-3.5-turbo", Known(("chat", "tools"), 16_385, 4_096)),
        ("gpt-5-mini-2025-08-07", Known(ALL, 400_000, 128_000)),
        ("gpt-5.2", Known(ALL, 400_000, 128_000)),
        ("gpt-5.5-2026-04-23", Known(ALL, 1_050_000, 128_000)),
        ("gpt-5-chat-latest", Known(("chat", "vision", "json"), 128_000, 16_384)),
        ("o3-mini-2025-01-31", Known(TEXT, 200_000, 100_000)),
        ("o4-mini", Known(ALL, 200_000, 100_000)),
        ("text-embedding-3-small", Known(("embeddings",), 8_192, 0)),
        ("gpt-3.5-turbo-instruct", Known(("completions",), 4_096, 4_096)),
        ("davinci-002", Known(("completions",), 16_384, 16_384)),
        ("claude-3-haiku-20240307", Known(SEES, 200_000, 4_096)),
        ("claude-3-5-sonnet@20240620", Known(SEES, 200_000, 8_192)),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", Known(SEES, 200_000, 8_192)),
        ("claude-3-7-sonnet-latest", Known(SEES, 200_000, 64_000)),
        ("claude-opus-4-20250514", Known(SEES, 200_000, 32_000)),
        ("claude-opus-4-1-20250805", Known(ALL, 200_000, 32_000)),
        ("claude-haiku-4-5-20251001", Known(ALL, 200_000, 64_000)),
        ("anthropic/claude-sonnet-4.5", Known(ALL, 200_000, 64_000)),
        ("claude-sonnet-4-6", Known(ALL, 1_000_000, 64_000)),
        ("claude-opus-5", Known(ALL, 1_000_000, 128_000)),
        ("gemini-2.5-flash-preview-09-2025", Known(ALL, 1_048_576, 65_536)),
        ("meta-llama/Llama-3.1-8B-Instruct", LLAMA),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo", LLAMA),
        ("llama3.1:8b", LLAMA),
        ("llama3.1:8b-instruct-q4_K_M", LLAMA),
        ("llama-3.3-70b-versatile", LLAMA),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", Known(ALL, 131_072, 0)),
        ("meta-llama/Meta-Llama-3-8B-Instruct", Known(("chat", "json"), 8_192, 0)),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", Known(TEXT, 0, 0)),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", Known(TEXT, 0, 0)),
        ("Qwen/Qwen3-Embedding-8B", Known(("embeddings",), 32_768, 0)),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", Known(TEXT, 65_536, 0)),
        ("mistralai/Mistral-Small-3.1-24B-Instruct-2503", Known(ALL, 131_072, 0)),
        ("mistral-large-latest", Known(TEXT, 0, 0)),
        ("google/gemma-3-27b-it", Known(("chat", "vision", "json"), 131_072, 0)),
        ("gemma3:1b", Known(("chat", "json"), 32_768, 0)),
        ("deepseek-chat", Known(("chat", "tools"), 0, 0)),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", Known(("chat", "json"), 0, 0)),
        ("openai/gpt-oss-120b", Known(TEXT, 131_072, 131_072)),
        ("BAAI/bge-m3", Known(("embeddings",), 0, 0)),
    ],
)
def test_well_known_models_are_known_however_they_are_called(name: str, expected: Known) -> None:
    assert known(name) == expected


@pytest.mark.parametrize(
    "name",
    ["dall-e-3", "whisper-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-audio-preview", "gpt-image-1",
     "gpt-realtime", "omni-moderation-latest", "gpt-5.1-codex", "o1-pro",
     "gpt-5-pro-2025-10-06", "o4-mini-deep-research-2025-06-26", "sora-2"],
)  # fmt: skip
def test_some_are_known_for_nothing_that_we_route(name: str) -> None:
    assert known(name) == NOTHING
    assert not discovery.suggest("acme", ModelListing(name)).enabled


@pytest.mark.parametrize(
    "name",
    ["", "/", "small", "gpt", "gpt-4o2", "my-gpt-4o", "gpt-4o-finetuned-by-us", "ft:gpt-4o:me::1",
     "claude", "claude-3", "claude-9-opus", "llama", "llama-9", "o9", "x" * 10_000, "a" * 150],
)  # fmt: skip
def test_of_other_names_nothing_is_said(name: str) -> None:
    assert known(name) is None


def test_the_simulators_models_are_known_and_have_no_limits() -> None:
    for name in MODELS:
        found = known(name)
        assert found is not None
        assert found == Known(ALL, 0, 0)


@pytest.mark.parametrize("row", [*capabilities._HOSTED, *capabilities._OPEN])
def test_a_row_makes_sense(row: capabilities.Row) -> None:
    name, words, context, output = row
    re.compile(name)
    assert set(words.split()) <= set(CAPABILITIES)
    assert 0 <= output <= context or context == 0
    assert len({"chat", "embeddings", "completions"} & set(words.split())) == bool(words)


@given(st.text(max_size=250))
def test_any_name_has_an_answer(name: str) -> None:
    found = known(name)
    assert found is None or set(found.capabilities) <= set(CAPABILITIES)


def test_what_a_provider_says_of_its_limits_counts_more_than_the_name() -> None:
    listed = ModelListing("meta-llama/Llama-3.1-8B-Instruct", "vllm", max_context_tokens=8_000)
    model = discovery.suggest("acme", listed)
    assert (model.id, model.upstream_model, model.provider_id) == (listed.id, listed.id, "acme")
    assert (model.capabilities, model.max_context_tokens) == (TEXT, 8_000)
    assert model.enabled
    assert not model.price.is_known


def test_a_model_of_which_nothing_is_known_is_suggested_as_it_is_listed() -> None:
    model = discovery.suggest("acme", ModelListing("small", max_output_tokens=7))
    assert (model.capabilities, model.max_context_tokens, model.max_output_tokens) == ((), 0, 7)
    assert model.enabled

"""Embeddings and completions with OpenAI's SDK."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.system.sdks.kit import async_openai, last_wire, run
from tests.system.test_main_job import log_of

pytestmark = pytest.mark.system

EMBEDS = pytest.mark.parametrize("model", ["embeds-openai", "embeds-vllm"])


@EMBEDS
def test_embeddings_are_the_same_as_numbers_and_in_base64(gateway, client, model):
    texts = ["Where is my lamp?", "Here."]
    unasked = client.embeddings.create(model=model, input=texts)  # the SDK asks for base64
    assert last_wire(gateway)["body"]["encoding_format"] == "base64"
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    assert [each.index for each in floats.data] == [0, 1]
    for ours, theirs in zip(unasked.data, floats.data, strict=True):
        assert len(ours.embedding) == 1536
        assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-6)
    assert unasked.usage.prompt_tokens == unasked.usage.total_tokens > 0


@EMBEDS
def test_embeddings_are_made_async_and_booked(gateway, model):
    async def work() -> Any:
        async with async_openai(gateway) as client:
            return await client.embeddings.with_raw_response.create(
                model=model, input="lamp", dimensions=8
            )

    raw = run(work())
    answer = raw.parse()
    assert len(answer.data[0].embedding) == 8
    row = log_of(gateway, raw.headers["x-request-id"])
    assert (row["model_id"], row["endpoint"]) == (model, "/v1/embeddings")
    assert (row["input_tokens"], row["output_tokens"]) == (answer.usage.prompt_tokens, 0)


def test_only_models_that_embed_are_asked(client):
    raw = client.embeddings.with_raw_response.create(model="*", input="lamp")
    assert raw.headers["x-negotiated-model"].startswith("embeds-")


def test_a_provider_without_embeddings_is_refused_clearly(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(
            model="of-anthropic", input="lamp",
            extra_headers={"X-TokenHub-Exclude": "openai,vllm"},
        )  # fmt: skip
    assert refused.value.body


def test_a_prompt_is_continued_whole_and_streamed(client, kind):
    asked: Any = {"model": f"of-{kind}", "prompt": "Where is my lamp?", "max_tokens": 12}
    whole = client.completions.create(**asked)
    assert whole.object == "text_completion"
    assert "Where is my lamp?" in whole.choices[0].text
    assert whole.choices[0].finish_reason == "length"
    chunks = list(
        client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    pieces = [choice.text for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_prompt_goes_through_where_the_provider_continues_prompts(gateway, client):
    for model in ("of-vllm", "native"):
        answer = client.completions.create(
            model=model, prompt=["One", "Two"], max_tokens=4, echo=True
        )
        assert last_wire(gateway)["path"] == "/v1/completions"
        assert [choice.text[:3] for choice in answer.choices] == ["One", "Two"]


def test_completions_are_async_too(gateway, kind):
    async def work() -> Any:
        async with async_openai(gateway) as client:
            stream = await client.completions.create(
                model=f"of-{kind}", prompt="Hi", max_tokens=4, stream=True
            )
            return [choice.text async for chunk in stream for choice in chunk.choices]

    assert "".join(run(work()))

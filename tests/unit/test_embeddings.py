"""Requests for embeddings are read by field; nothing of them is translated."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.routing_kit import ids, make_model
from tokenhub.dialects import DIALECTS
from tokenhub.dialects import embeddings as dialect
from tokenhub.domain import Policy, Price, Usage
from tokenhub.errors import InvalidRequest, Untranslatable
from tokenhub.gateway import attempts
from tokenhub.health import HEALTHY
from tokenhub.pricing import upper_bound_cost
from tokenhub.providers.base import Answer
from tokenhub.routing import decide


def read(**fields):
    return dialect.read_request(orjson.dumps({"model": "m", "input": "hello you", **fields}))


def test_a_request_is_read_and_keeps_what_we_do_not_know():
    request = read(dimensions=64, encoding_format="base64", user="u", vendor=1, stream=False)
    assert (request.dialect, request.model, request.stream) == ("embeddings", "m", False)
    assert (request.needs, request.input_tokens) == ({"embeddings"}, 2)
    assert request.body["vendor"] == 1


@pytest.mark.parametrize(
    ("given_", "tokens"),
    [("abcd", 1), (["abcd", "ab"], 1), ([5, 6, 7], 3), ([[5], [6, 7]], 3), (["a" * 400], 100)],
)
def test_input_of_every_form_is_estimated(given_, tokens):
    assert read(input=given_).input_tokens == tokens


@pytest.mark.parametrize("given_", [["a"] * 3000, "", ["a", ""]])
def test_how_many_inputs_there_may_be_and_how_short_is_the_provider_s_to_say(given_):
    assert read(input=given_).body["input"] == given_


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": []}, "model"), ({"input": None}, "input"),
        ({"input": []}, "input"), ({"input": 5}, "input"),
        ({"input": [1, "a"]}, "input"), ({"input": [[]]}, "input[0]"), ({"input": [1.5]}, "input"),
        ({"input": {"text": "a"}}, "input"), ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": "bytes"}, "encoding_format"),  # no JSON, and no usage
        ({"dimensions": 0}, "dimensions"), ({"dimensions": "64"}, "dimensions"),
        ({"dimensions": True}, "dimensions"), ({"user": 5}, "user"), ({"stream": True}, "stream"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_field(fields, param):
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**70) | st.floats(0, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=6))  # fmt: skip
def test_whatever_is_to_be_embedded_is_read_or_refused_by_its_name(value):
    try:
        raw = orjson.dumps({"input": value})
    except TypeError:
        return  # beyond 64 bits
    try:
        assert dialect.read_request(raw).input_tokens >= 0
    except InvalidRequest as refused:
        assert (refused.param or "").startswith("input")


def test_nothing_is_written_so_nothing_is_set_aside_for_it():
    cost = upper_bound_cost(Price(input_per_mtok=3_000_000), read(input=[1] * 3))
    assert cost == 15
    assert DIALECTS["embeddings"].limit_output(read(), 5).body == read().body


def test_a_chat_model_is_never_asked_for_embeddings():
    with pytest.raises(Untranslatable) as refused:
        DIALECTS["embeddings"].to_chat(read())
    assert refused.value.param == "model"


def test_only_models_that_are_known_to_embed_are_chosen():
    models = [
        make_model("chat", capabilities=("chat",)), make_model("unknown"),
        make_model("vectors", capabilities=("embeddings",)),
    ]  # fmt: skip
    decision = decide(
        read(), Policy(), models, adapters={"p"}, health=HEALTHY, named=None, temperature=0.0,
        rng=random.Random(1), snapshot_version=1,
    )  # fmt: skip
    assert ids(decision.candidates) == ["vectors"]
    assert decision.last_resort == ()
    assert decision.skips == {"chat": "capability", "unknown": "capability"}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "total_tokens": 5}, Usage(input_tokens=5)),
        ({"total_tokens": 5}, Usage(input_tokens=5)),
        ({"prompt_tokens": 0, "total_tokens": 0}, None), ({}, None), (None, None), ("x", None),
    ],
)  # fmt: skip
def test_the_usage_is_what_was_read(usage, expected):
    assert dialect.usage_of({"usage": usage}) == expected


def test_who_does_not_say_what_was_read_is_believed_to_have_written_nothing():
    answer = Answer(b"x" * 4000, {}, None, 1, dialect="embeddings")
    assert attempts.usage_of(answer, read()) == Usage(2, 0, is_estimate=True)


@pytest.mark.parametrize(
    ("payload", "is_one"),
    [({"data": [{}]}, True), ({"data": []}, False), ({"data": {}}, False), ({}, False)],
)
def test_an_answer_has_vectors(payload, is_one):
    assert dialect.is_answer(payload) == is_one

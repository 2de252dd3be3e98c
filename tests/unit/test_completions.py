"""Completions are read by field, metered on their way through, and said in chat and back."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.routing_kit import decided, ids, make_model
from tokenhub.dialects import DIALECTS, openai
from tokenhub.dialects import completions as dialect
from tokenhub.dialects.sse import events
from tokenhub.domain import Usage
from tokenhub.errors import InvalidRequest, ProviderError, Untranslatable

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def read(**fields):
    return dialect.read_request(orjson.dumps({"model": "m", "prompt": "Once upon", **fields}))


def event(**chunk) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def piece(text: str, **choice) -> bytes:
    return event(choices=[{"text": text, "index": 0, "finish_reason": None, **choice}], usage=None)


def chat_chunk(delta, finish_reason=None, **fields) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    return event(**{**head, "choices": [choice], **fields})


def datas(block: bytes):
    found = [data for _, data in events(block)]
    return [data.decode() if data == b"[DONE]" else orjson.loads(data) for data in found]


# --- reading ------------------------------------------------------------------------------------


def test_a_request_is_read_and_keeps_what_we_do_not_know():
    request = read(stream=True, stream_options={"include_usage": True}, n=2, vendor={"a": 1})
    assert (request.dialect, request.model, request.stream) == ("completions", "m", True)
    assert (request.wants_usage, request.choices, request.needs) == (True, 2, frozenset())
    assert request.body["vendor"] == {"a": 1}
    assert request.input_tokens == 2


@pytest.mark.parametrize(("fields", "limit"), [({}, 16), ({"max_tokens": 9}, 9)])
def test_the_limit_is_the_api_s_own_unless_one_is_given(fields, limit):
    assert read(**fields).output_tokens_max == limit


@pytest.mark.parametrize(
    ("fields", "choices"),
    [({"best_of": 5, "n": 2}, 5), ({"prompt": ["a", "b"], "n": 3}, 6), ({"prompt": [1, 2]}, 1)],
)
def test_all_that_is_written_is_paid_for(fields, choices):
    assert read(**fields).choices == choices


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("", 0), ("abc", 1), ("a" * 40, 10), ([1, 2, 3], 3), ([[1], [2, 3]], 3), (["abcd"] * 3, 3)],
)
def test_prompts_of_every_form_are_estimated(prompt, tokens):
    assert read(prompt=prompt).input_tokens == tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 1}, "model"), ({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"),
        ({"prompt": 5}, "prompt"), ({"prompt": {}}, "prompt"), ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [True]}, "prompt"), ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt[1]"), ({"prompt": [[1], ["a"]]}, "prompt[1]"),
        ({"prompt": ["a"] * 2049}, "prompt"), ({"prompt": [[1, True]]}, "prompt[0]"),
        ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": "9"}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"), ({"top_p": True}, "top_p"), ({"n": 0}, "n"),
        ({"n": 129}, "n"), ({"best_of": 1.5}, "best_of"), ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"), ({"logprobs": True}, "logprobs"),
        ({"echo": 1}, "echo"), ({"suffix": []}, "suffix"), ({"stop": 1}, "stop"),
        ({"stop": ["a", 1]}, "stop"), ({"presence_penalty": []}, "presence_penalty"),
        ({"frequency_penalty": "x"}, "frequency_penalty"), ({"logit_bias": []}, "logit_bias"),
        ({"user": 1}, "user"), ({"seed": 1.5}, "seed"), ({"prompt_embeds": 1}, "prompt_embeds"),
        ({"prompt_embeds": ["a", 1]}, "prompt_embeds"),
        ({"prompt": None, "prompt_embeds": []}, "prompt"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_field(fields, param):
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param


@given(st.binary() | st.text().map(lambda text: orjson.dumps({"prompt": [text, {}]})))
def test_whatever_is_no_request_is_refused(raw):
    with pytest.raises(InvalidRequest):
        dialect.read_request(raw)


@given(st.sampled_from(sorted(dialect._CHECKS)), st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**40) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5))  # fmt: skip
def test_a_field_is_read_or_refused_by_its_name(name, value):
    try:
        request = read(**{name: value})
    except InvalidRequest as refused:
        assert refused.param == name
    else:
        assert request.body[name] == value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": None, "prompt_embeds": "A" * 3000}, (1, 3)),
        ({"prompt": None, "prompt_embeds": ["A" * 3000, "A"], "n": 2}, (4, 4)),
        ({"prompt": "abcd", "prompt_embeds": ["A"]}, (2, 2)),
    ],
)
def test_a_prompt_may_be_vectors_for_who_takes_them(fields, expected):
    request = read(**fields)
    assert (request.choices, request.input_tokens) == expected
    with pytest.raises(Untranslatable) as refused:
        dialect.to_chat(request)
    assert refused.value.param == "prompt_embeds"


def test_a_limit_can_be_set_from_outside_and_the_caller_s_body_stays():
    request = read(max_tokens=100)
    limited = DIALECTS["completions"].limit_output(request, 7)
    assert (limited.body["max_tokens"], limited.output_tokens_max) == (7, 7)
    assert request.body["max_tokens"] == 100


@pytest.mark.parametrize(
    ("kind", "chosen"), [("completions", ["chat", "texts"]), ("chat", ["chat"])]
)
def test_a_model_for_completions_only_is_asked_for_nothing_else(kind, chosen):
    models = [
        make_model("chat", capabilities=("chat",)),
        make_model("texts", capabilities=("completions",)),
    ]
    decision = decided(models, request={"dialect": kind})
    assert sorted(ids(decision.candidates)) == chosen


# --- to chat ------------------------------------------------------------------------------------


def test_the_prompt_is_a_user_s_message_and_the_rest_the_same():
    fields = {"temperature": 0.5, "n": 2, "stop": ["x"], "logit_bias": {"5": 1}, "seed": 2**40}
    chat, dropped = dialect.to_chat(read(max_tokens=40, **fields))
    assert chat.body == {
        "model": "m", "messages": [{"role": "user", "content": "Once upon"}],
        "max_completion_tokens": 40,
        **fields,
    }  # fmt: skip
    assert (chat.dialect, chat.choices, chat.output_tokens_max, dropped) == ("chat", 2, 40, ())
    openai.read_request(orjson.dumps(chat.body))


def test_the_default_limit_is_said_and_a_stream_s_usage_asked_for():
    chat = dialect.to_chat(read(stream=True)).request
    assert chat.body["max_completion_tokens"] == 16
    assert chat.wants_usage


def test_one_prompt_in_a_list_is_one():
    assert dialect.to_chat(read(prompt=["hi"])).request.body["messages"][0]["content"] == "hi"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1]]}, "prompt"), ({"echo": True}, "echo"), ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"), ({"logprobs": 0}, "logprobs"), ({"logprobs": 5}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_say_is_refused(fields, param):
    with pytest.raises(Untranslatable) as refused:
        dialect.to_chat(read(**fields))
    assert refused.value.param == param


@pytest.mark.parametrize(
    "fields", [{"echo": False}, {"suffix": ""}, {"best_of": 1}, {"logprobs": None}, {"echo": None}]
)
def test_what_asks_for_nothing_is_neither_refused_nor_told(fields):
    chat, dropped = dialect.to_chat(read(**fields))
    assert dropped == ()
    assert not fields.keys() & chat.body.keys()


def test_what_completions_do_not_have_is_left_out_and_told():
    chat, dropped = dialect.to_chat(read(max_completion_tokens=10**6, tools=[1], top_k=None))
    assert dropped == ("max_completion_tokens", "tools")
    assert chat.body.keys() == {"model", "messages", "max_completion_tokens"}


# --- and back -----------------------------------------------------------------------------------


def completion(*choices, **fields):
    head = {"id": "chatcmpl-7", "object": "chat.completion", "created": 5, "model": "m"}
    return {**head, "choices": list(choices), "usage": USAGE, **fields}


def test_a_chat_completion_is_a_text_completion():
    message = {"role": "assistant", "content": "a time", "reasoning_content": "hm"}
    chat = completion({"index": 0, "message": message, "finish_reason": "length"})
    assert dialect.to_completion(chat, read()) == {
        "id": "cmpl-7", "object": "text_completion", "created": 5, "model": "m",
        "choices": [{"text": "a time", "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": USAGE,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "reason", "text", "said"),
    [
        ({"content": None, "refusal": "no"}, "content_filter", "no", "content_filter"),
        ({"content": None, "tool_calls": [{}]}, "tool_calls", "", "stop"),
        ({"content": "x"}, None, "x", "stop"), (None, "stop", "", "stop"),
        ({"content": [{"type": "text"}]}, "stop", "", "stop"),
    ],
)  # fmt: skip
def test_whatever_a_provider_answers_has_a_text_and_an_end(message, reason, text, said):
    chat = completion({"index": 0, "message": message, "finish_reason": reason})
    choice = dialect.to_completion(chat, read())["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text, said)


STREAM = (
    chat_chunk({"role": "assistant", "content": ""}), chat_chunk({"reasoning_content": "hm"}),
    chat_chunk({"content": "a "}), chat_chunk({"content": "time"}), chat_chunk({}, "stop"),
    event(id="chatcmpl-7", created=5, model="m", choices=[], usage=USAGE), openai.DONE,
)  # fmt: skip


@pytest.mark.parametrize("wants_usage", [False, True])
def test_a_stream_of_chat_is_one_of_completions(wants_usage):
    request = read(stream=True, stream_options={"include_usage": wants_usage})
    translator = DIALECTS["completions"].translator(request)
    assert translator.feed(STREAM[0] + STREAM[1]) == b""
    said = datas(translator.feed(b"".join(STREAM[2:])))
    assert said.pop() == "[DONE]"
    usages = [chunk.pop("usage", "none") for chunk in said]
    assert usages == ([None] * 3 + [USAGE] if wants_usage else ["none"] * 3)
    assert [c["text"] for chunk in said for c in chunk["choices"]] == ["a ", "time", ""]
    assert [c["finish_reason"] for chunk in said for c in chunk["choices"]] == [None, None, "stop"]
    assert {(c["id"], c["object"], c["created"], c["model"]) for c in said} == {
        ("cmpl-7", "text_completion", 5, "m")
    }


def test_a_chunk_that_has_its_usage_beside_its_end_keeps_both():
    request = read(stream=True, stream_options={"include_usage": True})
    block = chat_chunk({"content": "a"}, "stop", usage=USAGE)
    (said,) = datas(dialect.Completions(request).feed(block))
    assert (said["usage"], said["choices"][0]["finish_reason"]) == (USAGE, "stop")


def test_a_stream_that_breaks_ends_with_an_error():
    error = ProviderError("gone", error_class="stream_cut")
    (said,) = datas(dialect.Completions(read()).fail(error))
    assert said["error"]["code"] == "stream_cut"


@given(st.lists(st.text(min_size=1), max_size=8), st.data())
def test_the_text_is_the_same_wherever_the_blocks_are_cut(texts, data):
    chunks = [STREAM[0], *(chat_chunk({"content": text}) for text in texts), *STREAM[4:]]
    translator, said = dialect.Completions(read(stream=True)), b""
    while chunks:
        cut = data.draw(st.integers(1, len(chunks)))
        said += translator.feed(b"".join(chunks[:cut]))
        chunks = chunks[cut:]
    *found, done = datas(said)
    assert done == "[DONE]"
    assert "".join(c["text"] for chunk in found for c in chunk["choices"]) == "".join(texts)


# --- through ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hide_usage", [False, True])
def test_a_stream_passes_as_it_is_and_is_metered(hide_usage):
    meter = dialect.StreamMeter(split=events, hide_usage=hide_usage)
    body = piece("four") + piece("five5", finish_reason="length")
    usage = event(choices=[], usage=USAGE)
    assert meter.pass_on(body) == body
    assert (meter.output_tokens, meter.finish_reason, meter.usage) == (3, "length", None)
    assert meter.pass_on(usage + openai.DONE) == (b"" if hide_usage else usage) + openai.DONE
    assert meter.usage == Usage(input_tokens=3, output_tokens=4)


@pytest.mark.parametrize("data", [b"1", b'{"choices":[1]}', b'{"choices":[{"text":5}]}', b"x"])
def test_what_has_another_shape_is_metered_all_the_same(data):
    meter = dialect.StreamMeter(split=events, hide_usage=True)
    block = b"data: " + data + b"\n\n"
    assert meter.pass_on(block) == block
    assert meter.output_tokens == 0


@pytest.mark.parametrize(
    ("block", "is_opening"),
    [
        (piece(""), True), (piece("a"), False), (piece("", finish_reason="stop"), False),
        (event(choices=[], usage=USAGE), False), (event(id="x"), False),
    ],
)  # fmt: skip
def test_a_chunk_without_text_only_opens_a_stream(block, is_opening):
    assert dialect.opens_stream(block[6:-2]) == is_opening

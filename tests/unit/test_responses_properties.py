"""Whatever a caller sends as a Responses request is read, or refused in our own words."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.responses_kit import FUNCTION, RESPONSES
from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.requests import to_messages
from tokenhub.dialects.responses.to_chat import DROPPED, REFUSED, TRANSLATED, to_chat
from tokenhub.errors import InvalidRequest

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(-3, 3),
              st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3),
                            st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


def often(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what makes sense, now and then anything at all."""
    return st.integers(0, 19).flatmap(lambda number: anything if number == 19 else likely)


TEXTS = st.sampled_from(["", " ", "a", "é…"])
IDS = st.sampled_from(["a", "b"])
PARTS = st.fixed_dictionaries(
    {"type": often(st.sampled_from(
        ["input_text", "output_text", "refusal", "input_image", "input_file", "input_audio"]))},
    optional={"text": often(TEXTS), "refusal": often(TEXTS), "annotations": anything,
              "image_url": often(st.just("https://x.test/a")), "detail": often(TEXTS),
              "file_data": often(st.just("data:application/pdf;base64,AA")),
              "file_id": often(IDS), "file_url": often(IDS), "filename": often(TEXTS)},
)  # fmt: skip
CONTENTS = often(TEXTS | st.lists(often(PARTS), max_size=3))
ITEMS = st.one_of(
    st.fixed_dictionaries(
        {"role": often(st.sampled_from(["user", "assistant", "system", "developer"])),
         "content": CONTENTS},
        optional={"type": often(st.just("message")), "id": anything, "phase": anything}),
    st.fixed_dictionaries({"type": st.just("function_call"), "call_id": often(IDS),
                           "name": often(IDS), "arguments": often(st.just("{}"))}),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "call_id": often(IDS),
                           "output": CONTENTS}),
    st.fixed_dictionaries({"type": st.just("custom_tool_call"), "call_id": often(IDS),
                           "name": often(IDS), "input": often(TEXTS)}),
    st.fixed_dictionaries({"type": st.just("custom_tool_call_output"), "call_id": often(IDS),
                           "output": CONTENTS}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "id": often(IDS)},
                          optional={"summary": anything, "encrypted_content": anything}),
    st.dictionaries(st.sampled_from(["type", "id", "role", "content"]), anything, max_size=3),
)  # fmt: skip
TOOLS = st.one_of(
    st.just(FUNCTION), st.just({"type": "web_search"}),
    st.fixed_dictionaries({"type": st.just("function"), "name": often(IDS)},
                          optional={"parameters": anything, "strict": anything}),
    st.fixed_dictionaries({"type": st.just("custom"), "name": often(IDS)},
                          optional={"format": often(st.just({"type": "grammar"}))}),
)  # fmt: skip
REQUESTS = st.fixed_dictionaries(
    {"input": often(TEXTS | st.lists(often(ITEMS), max_size=5))},
    optional={
        **dict.fromkeys(sorted((TRANSLATED | REFUSED | DROPPED.keys()) - {"input"}), anything),
        "tools": often(st.lists(often(TOOLS), max_size=2)),
        "tool_choice": often(st.sampled_from(["auto", "none", "required"]) | TOOLS),
        "text": often(st.fixed_dictionaries({}, optional={
            "verbosity": often(st.just("low")), "format": often(st.sampled_from([
                {"type": "json_object"}, {"type": "json_schema", "name": "n", "schema": {}}]))})),
        "reasoning": often(st.fixed_dictionaries({}, optional={
            "effort": often(st.just("low")), "summary": often(st.just("auto"))})),
        "store": often(st.just(False)), "background": often(st.just(False)),
        "previous_response_id": often(st.none()), "conversation": often(st.none()),
        "prompt": often(st.none()), "moderation": often(st.none()), "model": often(st.just("m")),
    },
)  # fmt: skip


@given(REQUESTS)
def test_what_is_read_is_a_chat_or_refused_by_a_path(body: dict[str, Any]) -> None:
    try:
        request = RESPONSES.read(orjson.dumps(body))
        assert request.body["store"] is False
        said, dropped = to_chat(request)
    except InvalidRequest as refused:
        assert refused.status == 400
        assert refused.param
        return
    assert all(name == "other" or name.isascii() for name in dropped)
    again = openai.read_request(orjson.dumps(said.body))
    assert again.model == request.model
    assert again.stream == request.stream
    assert again.needs >= request.needs - {"vision"}  # a tool's picture is not looked for there
    assert again.output_tokens_max == request.output_tokens_max
    RESPONSES.answer({}, request)
    try:
        to_messages(said, model="claude-sonnet-4-5")
    except InvalidRequest as refused:
        assert refused.param

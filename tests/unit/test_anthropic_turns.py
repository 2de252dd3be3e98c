"""A conversation becomes turns that Anthropic accepts, or is refused by the path of the fault."""

from __future__ import annotations

import orjson
import pytest

from tests.unit.anthropic_kit import call, check, text, translate, turns, written
from tokenhub.errors import InvalidRequest, Untranslatable

USER = {"role": "user", "content": "hi"}
PNG = "data:image/png;base64,iVBORw0KGgo="


def assistant(*calls: object, **fields: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(id: str, content: object = "found") -> dict[str, object]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def test_instructions_go_to_the_top_in_their_order_wherever_they_stand():
    body = translate([
        {"role": "system", "content": "one"},
        USER,
        {"role": "developer", "content": [text("two", cache_control={"type": "ephemeral"})]},
        {"role": "system", "content": " "},
    ]).body  # fmt: skip
    assert body["system"] == [text("one"), text("two", cache_control={"type": "ephemeral"})]
    assert body["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_consecutive_messages_of_one_role_become_one_turn():
    assert turns([
        USER,
        {"role": "user", "content": "there"},
        {"role": "assistant", "content": "yes"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "user", "content": [text("so?")]},
    ]) == [
        {"role": "user", "content": [text("hi"), text("there")]},
        {"role": "assistant", "content": [text("yes"), text("no")]},
        {"role": "user", "content": [text("so?")]},
    ]  # fmt: skip


def test_what_is_empty_is_left_out():
    assert turns([
        {"role": "user", "content": ""},
        {"role": "user", "content": [text(" \n"), text("a")]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "b"},
    ]) == [{"role": "user", "content": [text("a"), text("b")]}]  # fmt: skip


def test_the_assistant_may_have_the_first_word():
    found = turns([{"role": "assistant", "content": "Hello!"}, USER])
    assert [turn["role"] for turn in found] == ["assistant", "user"]


def test_a_message_to_be_continued_loses_the_white_space_at_its_end():
    assert turns([USER, {"role": "assistant", "content": "The answer is: \n"}])[-1] == {
        "role": "assistant",
        "content": [text("The answer is:")],
    }


def test_a_newer_model_continues_no_message():
    with pytest.raises(Untranslatable) as refused:
        translate([USER, {"role": "assistant", "content": "The"}], model="claude-opus-4-6")
    assert refused.value.param == "messages[1]"


def test_results_of_parallel_calls_and_the_text_after_them_are_one_turn_results_first():
    found = turns([
        USER,
        assistant(call("call_1", arguments='{"q": "a"}'), call("call_2", arguments=""),
                  content="Looking."),
        result("call_2"),
        result("call_1", [text("a"), {"type": "image_url", "image_url": {"url": PNG}}]),
        {"role": "user", "content": "and?"},
    ])  # fmt: skip
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert found[1]["content"] == [
        text("Looking."),
        {"type": "tool_use", "id": "call_1", "name": "find", "input": {"q": "a"}},
        {"type": "tool_use", "id": "call_2", "name": "find", "input": {}},
    ]
    assert found[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_2", "content": [text("found")]},
        {"type": "tool_result", "tool_use_id": "call_1",
         "content": [text("a"), {"type": "image", "source": image}]},
        text("and?"),
    ]  # fmt: skip


def test_an_empty_result_is_a_result():
    found = turns([USER, assistant(call("c")), result("c", "")])
    assert found[-1]["content"] == [{"type": "tool_result", "tool_use_id": "c"}]


def test_an_instruction_between_a_call_and_its_result_is_in_nobodys_way():
    check(written(translate([
        USER, assistant(call("c")), {"role": "system", "content": "be brief"}, result("c"),
    ])))  # fmt: skip


def test_ids_become_plain_unique_and_anthropics_own_again():
    found = turns([
        USER,
        assistant(call("call_toolu_01A"), call("a.b"), call("a_b")), result("a.b"),
        result("call_toolu_01A"), result("a_b"),
        assistant(call("a.b")), result("a.b", "later"),
    ])  # fmt: skip
    first = [block["id"] for block in found[1]["content"]]
    assert first == ["toolu_01A", "a_b", "a_b-2"]
    assert [block["tool_use_id"] for block in found[2]["content"]] == ["a_b", "toolu_01A", "a_b-2"]
    assert found[3]["content"][0]["id"] == found[4]["content"][0]["tool_use_id"] == "a_b-3"


def test_arguments_are_sent_exactly_however_long_their_numbers_are():
    arguments = '{"id": 123456789012345678901234567890, "deep": ' + "[" * 300 + "]" * 300 + "}"
    body = translate([USER, assistant(call("c", arguments=arguments)), result("c")]).body
    assert arguments.encode() in orjson.dumps(body)


def test_only_thoughts_with_a_signature_are_sent_back_and_they_come_first():
    signed = {"type": "thinking", "thinking": "hm", "signature": "sig", "index": 0}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    translated = translate([
        USER,
        assistant(call("c"), content="Wait.", reasoning_content="hm",
                  thinking_blocks=[signed, {"type": "thinking", "thinking": "?"}, hidden]),
        result("c"),
    ])  # fmt: skip
    assert translated.body["messages"][1]["content"][:2] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"}, hidden,
    ]  # fmt: skip
    assert translated.dropped == ("messages.thinking_blocks",)


def test_thoughts_of_another_provider_are_left_out_and_told():
    translated = translate([
        USER, {"role": "assistant", "content": "a", "reasoning_content": "because"}, USER,
    ])  # fmt: skip
    assert translated.dropped == ("messages.reasoning_content",)


def test_a_message_of_nothing_but_thoughts_is_no_turn():
    only = {"role": "assistant", "content": None,
            "thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]}  # fmt: skip
    translated = translate([USER, only, USER])
    assert len(translated.body["messages"]) == 1
    assert translated.dropped == ("messages.thinking_blocks",)


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "auto"}},
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "DATA:image/jpg;charset=x;base64,AA=="}},
            {"type": "image",
             "source": {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}},
        ),
        (
            {"type": "file",
             "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
            {"type": "document", "title": "a.pdf",
             "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
        ),
        (
            {"type": "file", "file": {"file_data": "JVBE"}},
            {"type": "document",
             "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
        ),
    ],
)  # fmt: skip
def test_images_and_files_become_blocks(part, block):
    assert turns([{"role": "user", "content": [part]}])[0]["content"] == [block]


def test_the_mark_of_a_prefix_to_cache_is_kept_on_messages_and_parts():
    mark = {"type": "ephemeral", "ttl": "1h"}
    found = turns([
        {"role": "user", "content": [text("a", cache_control=mark), text("b")]},
        assistant(call("c")),
        {**result("c"), "cache_control": {"type": "ephemeral"}},
    ])  # fmt: skip
    assert found[0]["content"] == [text("a", cache_control=mark), text("b")]
    assert found[2]["content"][0]["cache_control"] == {"type": "ephemeral"}


def test_what_a_message_has_beside_its_content_is_told():
    translated = translate([
        {"role": "user", "name": "ann", "content": [
            {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
            text("x", prompt_cache_breakpoint={"mode": "explicit"}),
        ]},
        {"role": "assistant", "content": "y", "audio": None, "annotations": [], "refusal": None},
        {"role": "user", "content": "z", "bad\r\nname": 1},
    ])  # fmt: skip
    assert translated.dropped == (
        "messages.content.image_url.detail",
        "messages.content.prompt_cache_breakpoint",
        "messages.name",
        "other",
    )


def user(*parts: object) -> list[object]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("messages", "param", "error"),
    [
        ([{"role": "system", "content": "x"}], "messages", Untranslatable),
        ([{"role": "user", "content": " "}], "messages", Untranslatable),
        ([USER, {"role": "function", "name": "f", "content": "x"}], "messages[1].role",
         Untranslatable),
        ([USER, result("c")], "messages[1].tool_call_id", Untranslatable),
        ([USER, assistant(call("a")), result("b")], "messages[2].tool_call_id", Untranslatable),
        ([USER, assistant(call("a")), result("a"), result("a")], "messages[3].tool_call_id",
         Untranslatable),
        ([USER, assistant(call("a"))], "messages[1].tool_calls[0]", Untranslatable),
        ([USER, assistant(call("a"), call("b")), result("a"), USER], "messages[1].tool_calls[1]",
         Untranslatable),
        ([USER, assistant(call("a"), call("b")), result("a"), assistant(call("c"))],
         "messages[1].tool_calls[1]", Untranslatable),
        ([USER, assistant(call("a"), call("a"))], "messages[1].tool_calls[1].id", InvalidRequest),
        ([USER, assistant({**call("a"), "id": 7})], "messages[1].tool_calls[0].id", InvalidRequest),
        ([USER, assistant(call(""), call(""))], "messages[1].tool_calls[1].id", InvalidRequest),
        ([USER, assistant(call(""))], "messages[1].tool_calls[0]", Untranslatable),
        ([USER, assistant(call("a", name="a.b"))], "messages[1].tool_calls[0].function.name",
         Untranslatable),
        ([USER, assistant({"id": "a", "type": "custom", "custom": {}})],
         "messages[1].tool_calls[0].type", Untranslatable),
        ([USER, assistant(7)], "messages[1].tool_calls[0]", InvalidRequest),
        ([USER, {"role": "assistant", "tool_calls": {}}], "messages[1].tool_calls",
         InvalidRequest),
        ([USER, {"role": "assistant", "content": "x", "thinking_blocks": [1]}],
         "messages[1].thinking_blocks[0]", InvalidRequest),
        ([USER, {"role": "assistant", "function_call": {"name": "f"}}],
         "messages[1].function_call", Untranslatable),
        ([USER, {"role": "assistant", "audio": {"id": "x"}}], "messages[1].audio",
         Untranslatable),
        ([USER, {"role": "assistant", "refusal": 7}], "messages[1].refusal", InvalidRequest),
        (user(7), "messages[0].content[0]", InvalidRequest),
        (user({"text": "x"}), "messages[0].content[0].type", Untranslatable),
        (user({"type": "input_audio"}), "messages[0].content[0].type", Untranslatable),
        (user({"type": "refusal", "refusal": "x"}), "messages[0].content[0].type",
         Untranslatable),
        (user({"type": "text"}), "messages[0].content[0].text", InvalidRequest),
        (user({"type": "image_url", "image_url": PNG}), "messages[0].content[0].image_url",
         InvalidRequest),
        (user({"type": "image_url", "image_url": {"url": "ftp://x"}}),
         "messages[0].content[0].image_url.url", InvalidRequest),
        (user({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}),
         "messages[0].content[0].image_url.url", InvalidRequest),
        (user({"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,AA"}}),
         "messages[0].content[0].image_url.url", Untranslatable),
        (user({"type": "file", "file": {"file_id": "file-1"}}),
         "messages[0].content[0].file.file_id", Untranslatable),
        (user({"type": "file", "file": {"file_data": "data:text/plain;base64,AA"}}),
         "messages[0].content[0].file.file_data", Untranslatable),
        (user(text("x", cache_control="yes")), "messages[0].content[0].cache_control",
         InvalidRequest),
        (user(text("x", cache_control={"type": "ephemeral", "ttl": "1y"})),
         "messages[0].content[0].cache_control.ttl", InvalidRequest),
        ([{"role": "system", "content": [{"type": "image_url"}]}, USER],
         "messages[0].content[0].type", Untranslatable),
    ],
)  # fmt: skip
def test_what_cannot_be_put_right_is_refused_by_its_path(messages, param, error):
    with pytest.raises(InvalidRequest) as refused:
        translate(messages)
    assert (refused.value.param, type(refused.value)) == (param, error)

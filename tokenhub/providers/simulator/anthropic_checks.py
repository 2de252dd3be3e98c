"""What Anthropic refuses in a request but for its messages, in its own words.

As strict as the API, so that a wrong translation is a 400 here too. The messages themselves are
checked in anthropic_messages. https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

import re
from typing import Any

from tokenhub.providers.simulator.anthropic_messages import (
    check_keys,
    check_messages,
    check_pattern,
    check_present,
    check_text,
    invalid,
    of_type,
    wrong_tag,
)
from tokenhub.providers.simulator.client import Request
from tokenhub.providers.simulator.errors import Refused

VERSION_WITHOUT_SAMPLING = "2026-10-21"
VERSIONS = ("2023-06-01", VERSION_WITHOUT_SAMPLING)
"""https://platform.claude.com/docs/en/api/versioning; the newer one takes fewer fields."""
OUTPUT_TOKENS_MAX = 128_000
THINKING_TOKENS_MIN = 1024
TOP_P_MIN_THINKING = 0.95
CACHE_MARKS_MAX = 4
COUNTED = frozenset(
    ("model", "messages", "cache_control", "output_config", "speed", "system", "thinking",
     "tool_choice", "tools", "user_profile_id"),
)  # fmt: skip
FIELDS = COUNTED | {
    "max_tokens", "stream", "stop_sequences", "metadata", "service_tier", "container",
    "inference_geo", "diagnostics",
}  # fmt: skip
SAMPLING_FIELDS = frozenset(("temperature", "top_p", "top_k"))
BETA_FIELDS = frozenset(("output_format", "mcp_servers", "context_management"))
TOOL_NAME = re.compile("[a-zA-Z0-9_-]{1,128}")
SERVER_TOOL = re.compile(r"[a-z_0-9]+_\d{8}")
TOOL_TAGS = ("bash_20250124", "custom", "text_editor_20250728", "web_search_20250305")
TOOL_KEYS = frozenset(
    ("name", "description", "input_schema", "type", "cache_control", "strict", "input_examples",
     "allowed_callers", "defer_loading", "eager_input_streaming"),
)  # fmt: skip
CHOICE_KEYS = {
    "auto": frozenset(("type", "disable_parallel_tool_use")),
    "any": frozenset(("type", "disable_parallel_tool_use")),
    "tool": frozenset(("type", "name", "disable_parallel_tool_use")),
    "none": frozenset(("type",)),
}
THINKING_KEYS = {
    "enabled": frozenset(("type", "budget_tokens", "display")),
    "adaptive": frozenset(("type", "display")),
    "between_tools": frozenset(("type",)),
    "disabled": frozenset(("type",)),
}
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def check_version(request: Request) -> str:
    """The version of the API that a request names.

    Raises:
        Refused: it names none.
    """
    version = request.headers.get("anthropic-version")
    if version is None:
        raise Refused("anthropic-version: header is required")
    if version not in VERSIONS:
        raise Refused(f'anthropic-version: "{version}" is not a valid version')
    return version


def check(body: dict[str, Any], *, version: str, is_beta: bool) -> None:
    """Check a request for a message.

    Raises:
        Refused: the API would not take it.
    """
    allowed = FIELDS if version == VERSION_WITHOUT_SAMPLING else FIELDS | SAMPLING_FIELDS
    check_keys(body, allowed | BETA_FIELDS if is_beta else allowed, "")
    check_present(body, ("model", "max_tokens", "messages"), "")
    _check_limit(body)
    _check_sampling(body)
    _check_options(body)
    _check_shared(body)
    check_messages(body)
    _check_marks(body)


def check_count(body: dict[str, Any]) -> None:
    """Check a request to count tokens.

    Raises:
        Refused: the API would not take it.
    """
    check_keys(body, COUNTED, "")
    check_present(body, ("model", "messages"), "")
    _check_shared(body)
    check_messages(body)
    _check_marks(body)


def _check_limit(body: dict[str, Any]) -> None:
    limit = of_type(body["max_tokens"], int, "max_tokens")
    if limit < 0:
        raise invalid("max_tokens", "Input should be greater than or equal to 0")
    if limit > OUTPUT_TOKENS_MAX:
        raise invalid(
            "max_tokens",
            f"{limit} > {OUTPUT_TOKENS_MAX}, which is the maximum allowed number of output tokens "
            f"for {body['model']}",
        )


def _check_sampling(body: dict[str, Any]) -> None:
    for name in ("temperature", "top_p"):
        if name in body and not 0 <= of_type(body[name], float, name) <= 1:
            raise invalid(name, "range: 0..1")
    if "top_k" in body and of_type(body["top_k"], int, "top_k") < 0:
        raise invalid("top_k", "Input should be greater than or equal to 0")
    if "stream" in body:
        of_type(body["stream"], bool, "stream")
    for number, stop in enumerate(of_type(body.get("stop_sequences", []), list, "stop_sequences")):
        if not of_type(stop, str, f"stop_sequences.{number}").strip():
            raise invalid("stop_sequences", "each stop sequence must contain non-whitespace")


def _check_options(body: dict[str, Any]) -> None:
    if body.get("service_tier", "auto") not in ("auto", "standard_only"):
        raise invalid("service_tier", "Input should be 'auto' or 'standard_only'")
    metadata = of_type(body.get("metadata", {}), dict, "metadata")
    check_keys(metadata, frozenset(("user_id",)), "metadata")
    if metadata.get("user_id") is not None:
        of_type(metadata["user_id"], str, "metadata.user_id")


def _check_shared(body: dict[str, Any]) -> None:
    """What a request to count tokens has too."""
    if not of_type(body["model"], str, "model"):
        raise invalid("model", "String should have at least 1 character")
    system = body.get("system", "")
    if not isinstance(system, str):
        for number, block in enumerate(of_type(system, list, "system")):
            if of_type(block, dict, f"system.{number}").get("type") != "text":
                raise invalid(f"system.{number}.type", "Input should be 'text'")
            check_text(block, f"system.{number}", "system")
    _check_tools(body)
    if "tool_choice" in body:
        _check_tool_choice(body)
    if "thinking" in body:
        _check_thinking(body)
    _check_format(body)


def _check_tools(body: dict[str, Any]) -> None:
    names = set()
    for number, tool in enumerate(of_type(body.get("tools", []), list, "tools")):
        kind = of_type(tool, dict, f"tools.{number}").get("type")
        if kind not in (None, "custom"):
            if not isinstance(kind, str) or not SERVER_TOOL.fullmatch(kind):
                raise wrong_tag(f"tools.{number}", kind, TOOL_TAGS)
            continue
        _check_tool(tool, f"tools.{number}.custom")
        if tool["name"] in names:
            raise invalid("tools", "Tool names must be unique.")
        names.add(tool["name"])


def _check_tool(tool: dict[str, Any], where: str) -> None:
    check_keys(tool, TOOL_KEYS, where)
    check_present(tool, ("name", "input_schema"), where)
    check_pattern(tool["name"], TOOL_NAME, f"{where}.name")
    if "description" in tool:
        of_type(tool["description"], str, f"{where}.description")
    schema = of_type(tool["input_schema"], dict, f"{where}.input_schema")
    check_present(schema, ("type",), f"{where}.input_schema")
    if schema["type"] != "object":
        raise invalid(f"{where}.input_schema.type", "Input should be 'object'")


def _check_tool_choice(body: dict[str, Any]) -> None:
    choice = of_type(body["tool_choice"], dict, "tool_choice")
    kind = str(choice.get("type"))
    if kind not in CHOICE_KEYS:
        raise wrong_tag("tool_choice", kind, sorted(CHOICE_KEYS))
    check_keys(choice, CHOICE_KEYS[kind], f"tool_choice.{kind}")
    if not body.get("tools"):
        raise Refused("tool_choice may only be specified while providing tools")
    if "disable_parallel_tool_use" in choice:
        of_type(choice["disable_parallel_tool_use"], bool,
                f"tool_choice.{kind}.disable_parallel_tool_use")  # fmt: skip
    if kind == "tool":
        check_present(choice, ("name",), "tool_choice.tool")
        if not any(tool.get("name") == choice["name"] for tool in body["tools"]):
            raise Refused(f"Tool '{choice['name']}' not found in provided tools")


def _check_thinking(body: dict[str, Any]) -> None:
    thinking = of_type(body["thinking"], dict, "thinking")
    kind = str(thinking.get("type"))
    if kind not in THINKING_KEYS:
        raise wrong_tag("thinking", kind, sorted(THINKING_KEYS))
    check_keys(thinking, THINKING_KEYS[kind], f"thinking.{kind}")
    if kind == "enabled":
        _check_budget(body, thinking)
    if kind in ("enabled", "adaptive"):
        _check_with_thinking(body)


def _check_budget(body: dict[str, Any], thinking: dict[str, Any]) -> None:
    where = "thinking.enabled.budget_tokens"
    check_present(thinking, ("budget_tokens",), "thinking.enabled")
    budget = of_type(thinking["budget_tokens"], int, where)
    if budget < THINKING_TOKENS_MIN:
        raise invalid(where, f"Input should be greater than or equal to {THINKING_TOKENS_MIN}")
    if budget >= body.get("max_tokens", budget + 1):
        raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_with_thinking(body: dict[str, Any]) -> None:
    if body.get("temperature", 1) != 1:
        raise Refused("`temperature` may only be set to 1 when thinking is enabled.")
    if "top_k" in body:
        raise Refused("`top_k` must be unset when thinking is enabled.")
    if body.get("top_p", 1) < TOP_P_MIN_THINKING:
        raise Refused(
            f"`top_p` must be greater than or equal to {TOP_P_MIN_THINKING} or unset when "
            "thinking is enabled."
        )
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise Refused("Thinking may not be enabled when tool_choice forces tool use.")


def _check_format(body: dict[str, Any]) -> None:
    config = of_type(body.get("output_config", {}), dict, "output_config")
    check_keys(config, frozenset(("effort", "format")), "output_config")
    if config.get("effort", EFFORTS[0]) not in (*EFFORTS, None):
        raise invalid("output_config.effort", "Input should be 'low', 'medium', 'high', 'xhigh' "
                      "or 'max'")  # fmt: skip
    for where, wanted in (
        ("output_config.format", config.get("format")),
        ("output_format", body.get("output_format")),
    ):
        if wanted is None:
            continue
        check_keys(of_type(wanted, dict, where), frozenset(("type", "schema")), where)
        if wanted.get("type") != "json_schema":
            raise invalid(f"{where}.type", "Input should be 'json_schema'")
        _check_schema(of_type(wanted.get("schema"), dict, f"{where}.schema"), f"{where}.schema")


def _check_schema(schema: Any, where: str) -> None:
    """Every object in it must say that it takes no other properties."""
    if isinstance(schema, list):
        for each in schema:
            _check_schema(each, where)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise invalid(
                where, "For 'object' type, 'additionalProperties' must be explicitly set to false"
            )
        for each in schema.values():
            _check_schema(each, where)


def _check_marks(body: dict[str, Any]) -> None:
    marks = 1 if body.get("cache_control") else 0
    groups = [body.get("tools", []), body.get("system")]
    groups += [message["content"] for message in body["messages"]]
    for blocks in groups:
        if isinstance(blocks, list):
            marks += sum(1 for block in blocks if block.get("cache_control"))
    if marks > CACHE_MARKS_MAX:
        raise Refused(f"A maximum of {CACHE_MARKS_MAX} blocks with cache_control may be provided. "
                      f"Found {marks}.")  # fmt: skip

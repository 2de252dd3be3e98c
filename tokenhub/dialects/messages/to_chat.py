"""From a Messages request to one of the chat dialect.

Says for every field what becomes of it: translated, refused, or left out and told. The three
tables below are the whole of Anthropic's request; docs/translation.md says the same to operators.
Formats: https://docs.claude.com/en/api/messages and
https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenhub.dialects.anthropic.reading import Dropped, object_at, whole_at, word_at
from tokenhub.dialects.anthropic.thinking import BUDGET_MIN, BUDGETS, EFFORT_WORDS, TYPES
from tokenhub.dialects.dialect import InChat
from tokenhub.dialects.messages.content import plain, read_content
from tokenhub.dialects.messages.reading import format_of
from tokenhub.dialects.messages.tools import read_tools, short_names_of
from tokenhub.dialects.messages.turns import Conversation
from tokenhub.dialects.tool_names import with_their_names
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest, Untranslatable

SAME = ("model", "temperature", "top_p")
"""What a chat says in the same words."""
TRANSLATED = frozenset({
    *SAME, "messages", "system", "max_tokens", "stop_sequences", "stream", "tools", "tool_choice",
    "thinking", "output_config", "output_format", "metadata", "service_tier",
})  # fmt: skip

REFUSED: Mapping[str, tuple[Any, ...]] = {
    "container": (),
    "mcp_servers": ([],),
    "inference_geo": ("global",),
}
"""What only Anthropic can do or promise, with the values, besides null, that ask for nothing."""

DROPPED: Mapping[str, tuple[Any, ...]] = {
    "top_k": (),
    "cache_control": (),
    "context_management": ({},),
    "diagnostics": ({},),
    "speed": ("standard",),
    "user_profile_id": ("",),
    "workspace_id": ("",),
}
"""What the answer is right without: left out and told, unless it is null or one of these values."""

HEADERS = ("anthropic-beta", "anthropic-user-profile-id", "anthropic-workspace-id")
"""The same for what its headers ask of Anthropic."""
EFFORT = "reasoning_effort"

STOPS_MAX = 4
"""https://platform.openai.com/docs/api-reference/chat/create: so many `stop`s."""
USER_CHARS_MAX = 64
"""OpenAI's limit for `user`; Anthropic's is 256, and agents use it."""
SCHEMA_NAME = "answer"
"""A chat wants a name for its schema; Anthropic has none."""
BUDGET_EFFORTS = ("high", "medium", "low")
"""The words that every model knows that can think at all; a budget is the first it is enough
for, see thinking.BUDGETS."""

_CONFIG_FIELDS = frozenset({"effort", "format"})
_FORMAT_FIELDS = frozenset({"type", "schema"})
_OFF_TYPES = ("disabled", "between_tools")


def to_chat(request: ChatRequest) -> InChat:
    """Translate a request that `reading.read_request` accepted; it stays as it is.

    Raises:
        InvalidRequest: a field has the wrong type.
        Untranslatable: a chat cannot be asked for this.
    """
    body, dropped = request.body, Dropped()
    for name, nothing in REFUSED.items():
        if body.get(name) is not None and body[name] not in nothing:
            raise Untranslatable(f"{name} can only be asked of Anthropic", param=name)
    said = {name: body[name] for name in SAME if body.get(name) is not None}
    talk = Conversation(dropped)
    said["messages"] = _messages(body, talk, dropped)
    if body.get("max_tokens") is not None:
        said["max_completion_tokens"] = _limit(body)
    if body.get("tools"):
        said |= read_tools(body, dropped)
    elif (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise InvalidRequest("there are no tools to choose from", param="tool_choice")
    optional = {
        "stop": _stops(body),
        EFFORT: _effort(body, dropped),
        "response_format": _format(body, dropped),
        "user": _user(body.get("metadata") or {}, dropped),
        "service_tier": "default" if body.get("service_tier") == "standard_only" else None,
        "stream": request.stream,
    }
    said |= {name: value for name, value in optional.items() if value}
    _drop(request, dropped)
    chat = replace(request, body=said, dialect="chat", headers={}, wants_usage=True)
    names = short_names_of(body, talk.called)
    return InChat(chat if names is None else with_their_names(chat, names), dropped.names)


def without_effort(request: ChatRequest, chat: ChatRequest) -> InChat | None:
    """A request that does not say how much to think, which not every model takes.

    Args:
        request: as its caller says it.
        chat: what `to_chat` has made of it.

    Returns:
        None if it does not say so now.
    """
    if EFFORT not in chat.body:
        return None
    effort = (request.body.get("output_config") or {}).get("effort")
    said = {name: value for name, value in chat.body.items() if name != EFFORT}
    name = "thinking" if effort is None else "output_config.effort"
    return InChat(replace(chat, body=said), (name,))


def stops_of(request: ChatRequest) -> list[str]:
    """The texts that end the answer."""
    return request.body.get("stop_sequences") or []


def _messages(
    body: Mapping[str, Any], talk: Conversation, dropped: Dropped
) -> list[dict[str, Any]]:
    system = read_content(body.get("system"), "system", dropped)
    talk.read(body["messages"])
    return [{"role": "system", "content": plain(system)}, *talk.said] if system else talk.said


def _limit(body: Mapping[str, Any]) -> int:
    limit = int(body["max_tokens"])
    if not limit:  # what Anthropic does then is to read the prompt into its cache
        raise Untranslatable("a chat has an answer of at least one token", param="max_tokens")
    return limit


def _stops(body: Mapping[str, Any]) -> list[str]:
    stops: list[str] = body.get("stop_sequences") or []
    if len(stops) > STOPS_MAX:
        raise Untranslatable(f"a chat takes {STOPS_MAX} at most", param="stop_sequences")
    return stops


def _user(metadata: dict[str, Any], dropped: Dropped) -> str | None:
    dropped.add_unknown(metadata, frozenset({"user_id"}), "metadata.")
    user: str | None = metadata.get("user_id")
    if user is None or len(user) <= USER_CHARS_MAX:
        return user
    dropped.add("metadata.user_id")
    return None


def _effort(body: Mapping[str, Any], dropped: Dropped) -> str | None:
    """How much to think. A chat can say how much, and not whether: many models do not take
    `none`, or refuse the field altogether, so thinking is not switched off."""
    thinking, config = body.get("thinking") or {}, body.get("output_config") or {}
    dropped.add_unknown(config, _CONFIG_FIELDS, "output_config.")
    effort = config.get("effort")
    if effort is not None:
        word_at(effort, "output_config.effort", EFFORT_WORDS)
    if thinking.get("display") is not None:
        dropped.add("thinking.display")
    kind = _kind_of(thinking)
    if kind in _OFF_TYPES:
        dropped.add("thinking")
        if effort is not None:
            dropped.add("output_config.effort")
        return None
    if effort is None and kind == "enabled":
        budget = whole_at(thinking.get("budget_tokens"), "thinking.budget_tokens", BUDGET_MIN)
        enough = [word for word in BUDGET_EFFORTS if BUDGETS[word] <= budget]
        return (enough or BUDGET_EFFORTS[-1:])[0]
    if effort is None and kind == "adaptive":
        dropped.add("thinking")  # what a model that can think does unasked
    return effort


def _kind_of(thinking: Mapping[str, Any]) -> str | None:
    kind: str | None = thinking.get("type")
    if kind is None or kind in TYPES:
        return kind
    raise Untranslatable("a chat has no such way to think", param="thinking.type")


def _format(body: Mapping[str, Any], dropped: Dropped) -> dict[str, Any] | None:
    wanted = format_of(body)
    if wanted is None:
        return None
    path = "output_format" if wanted is body.get("output_format") else "output_config.format"
    word_at(wanted.get("type"), f"{path}.type", ("json_schema",))
    schema = object_at(wanted.get("schema"), f"{path}.schema")
    dropped.add_unknown(wanted, _FORMAT_FIELDS, f"{path}.")
    described = {"name": SCHEMA_NAME, "schema": schema, "strict": _takes_strict(schema)}
    return {"type": "json_schema", "json_schema": described}


def _takes_strict(schema: Any) -> bool:
    """Whether OpenAI takes it as strict: every object has to require all of its properties, and
    to allow no others (https://platform.openai.com/docs/guides/structured-outputs)."""
    if isinstance(schema, list):
        return all(map(_takes_strict, schema))
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        names, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(names, dict) or not _is_texts(required):
            return False
        if schema.get("additionalProperties") is not False or set(names) != set(required):
            return False
    return all(map(_takes_strict, schema.values()))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _drop(request: ChatRequest, dropped: Dropped) -> None:
    for name, value in request.body.items():
        if name in TRANSLATED or name in REFUSED or value is None:
            continue
        if value not in DROPPED.get(name, ()):
            dropped.add(name)
    for name in HEADERS:
        if request.headers.get(name):
            dropped.add(name)

"""What the battery of SDKs shares: a gateway with a provider of each type, clients, and readers.

Knows nothing of what the tests of it expect.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai

from tests.system.harness import PROVIDER_KEY, Gateway, Pinned, running

TYPES = ("openai", "anthropic", "vllm")
UPSTREAM = {"of-vllm": "vllm-large", "thinks-vllm": "sim-reasoner", "embeds-vllm": "vllm-embed"}
"""The simulator is vLLM for models of such names."""
CHATS = ["chat", "tools", "vision", "json"]
PIXEL = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
        "gg=="
    )
).decode()


@contextmanager
def battery(directory: Path) -> Iterator[Gateway]:
    """Two workers; a provider of each type at the same simulator, which insists on the key.

    `of-<type>` chats, `thinks-<type>` shows its thoughts where such a provider does, `cut-<type>`
    breaks off, `embeds-<type>` embeds, and `native` is at a provider that speaks Responses.
    """
    patience = {"TOKENHUB_STREAM_IDLE_SECS": "1"}
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}", extra=patience) as found:
        found.simulate(api_key=PROVIDER_KEY)
        for name in ("sim-fast", "sim-smart", "sim-cheap"):
            found.admin("DELETE", f"models/{name}")
        for kind in TYPES:
            _add_provider(found, kind, type=kind)
            _add_model(found, f"of-{kind}", kind, CHATS)
            _add_model(found, f"thinks-{kind}", kind, CHATS)
            found.add_model(
                f"cut-{kind}", provider_id=kind, upstream_model="fault-cut", capabilities=["chat"]
            )
        _add_provider(found, "native", type="openai", native_responses=True)
        _add_model(found, "native", "native", [*CHATS, "completions"])
        for kind in ("openai", "vllm"):
            _add_model(found, f"embeds-{kind}", kind, ["embeddings"])
        yield found


def _add_provider(gateway: Gateway, name: str, **fields: Any) -> None:
    base_url = f"http://127.0.0.1:{gateway.simulator_port}/v1/"
    gateway.admin(
        "POST", "providers", {"id": name, "base_url": base_url, "api_key": PROVIDER_KEY, **fields}
    )


def _add_model(gateway: Gateway, name: str, provider_id: str, capabilities: list[str]) -> None:
    gateway.add_model(
        name, provider_id=provider_id, capabilities=capabilities,
        upstream_model=UPSTREAM.get(name, name),
    )  # fmt: skip


def openai_client(gateway: Gateway, key: str = "") -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=key or gateway.key, max_retries=0
    )


def async_openai(gateway: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=gateway.key, max_retries=0
    )


def anthropic_client(gateway: Gateway, key: str = "") -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=f"http://127.0.0.1:{gateway.port}", api_key=key or gateway.key, max_retries=0
    )


def async_anthropic(gateway: Gateway) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=f"http://127.0.0.1:{gateway.port}", api_key=gateway.key, max_retries=0
    )


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it to its end, in a loop of its own."""
    return asyncio.run(work)


def last_wire(gateway: Gateway) -> Any:
    """What the provider was sent last."""
    connection = Pinned(gateway.simulator_port)
    try:
        return connection.ask("GET", "/last").json
    finally:
        connection.close()


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


def schema_of(**properties: str) -> dict[str, Any]:
    """The JSON schema of an object, by the types of its fields."""
    fields = {key: {"type": kind} for key, kind in properties.items()}
    return {
        "type": "object", "properties": fields, "required": list(fields),
        "additionalProperties": False,
    }  # fmt: skip


def limited_key(gateway: Gateway) -> str:
    """A key for one request a minute, which it has made."""
    made = gateway.admin("POST", "apikeys", {"name": "limited", "rpm": 1})
    key = str(made["key"])
    body = {"model": "of-openai", "messages": [user("Hi")]}
    gateway.ask("POST", "/v1/chat/completions", body, token=key)
    return key

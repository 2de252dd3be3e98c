"""One gateway for all of the battery, and a client of each SDK."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.system.harness import Gateway
from tests.system.sdks.kit import TYPES, anthropic_client, battery, openai_client


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """At its end nobody must have stood in for another: each type has answered for itself."""
    with battery(tmp_path_factory.mktemp("battery")) as found:
        yield found
        rows = found.admin("GET", "logs?limit=1000")["logs"]
        asked = {(row["requested_model"], row["model_id"]) for row in rows if row["model_id"]}
        assert {pair for pair in asked if pair[0] not in (pair[1], "*")} == set()


@pytest.fixture(params=TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai_client(gateway) as found:
        yield found


@pytest.fixture
def claude(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(gateway) as found:
        yield found

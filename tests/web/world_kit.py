"""A worker in front of healthy providers of three types, for the tests of a whole module: what is
refused, and what is answered, changes nothing that another test would see."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints_kit import EMBEDDING, Endpoint
from tests.web.conftest import ADMIN_TOKEN, Admin
from tokenhub import host
from tokenhub.config import Settings
from tokenhub.factory import create_app
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream

TYPES = ("openai", "anthropic", "vllm")
PRICES = {"input_per_1k": 0.001, "output_per_1k": 0.002}


class World:
    """A worker in front of providers of three types that are well."""

    def __init__(self, app: Any, simulator: Simulator) -> None:
        self.app, self.client, self.simulator = app, app.test_client(), simulator
        admin = self.admin = Admin(self.client)
        for kind in TYPES:
            admin.provider(kind, type=kind, base_url=simulator.url)
            admin.model(f"of-{kind}", provider_id=kind, upstream_model="sim-fast", **PRICES)
        admin.model("vectors", provider_id="openai", capabilities=["embeddings"], **PRICES)
        self.token = admin.ok("POST", "apikeys", {"name": "one"})["key"]
        app.services.catalog.current()

    def post(self, endpoint: Endpoint, body: Any, **headers: str) -> Any:
        """Ask it; `body` may be bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(endpoint.path, data=raw, headers=sent)

    def refused(self, endpoint: Endpoint, body: Any, **headers: str) -> tuple[int, str, str | None]:
        """Status, code and param of a refusal."""
        response = self.post(endpoint, body, **headers)
        assert response.content_type == "application/json"
        error = endpoint.error_of(response.status_code, response.data)
        return response.status_code, error["code"], error["param"]


def model_of(endpoint: Endpoint, kind: str = "openai") -> str:
    """Who can be asked there."""
    return "vectors" if endpoint is EMBEDDING else f"of-{kind}"


@contextmanager
def open_world(data: Path, template: Path, **variables: str) -> Iterator[World]:
    """Start it on a copy of an empty database, with other settings if given."""
    shutil.copy(template, data / "tokenhub.sqlite")
    settings = Settings.from_env(
        {
            "TOKENHUB_DATA_DIR": str(data), "TOKENHUB_ADMIN_TOKEN": ADMIN_TOKEN,
            "TOKENHUB_CREDENTIALS_FILE": str(data / "credentials"), "TOKENHUB_DEMO": "true",
            "TOKENHUB_RATE_LIMIT_RPS": "0", "TOKENHUB_ADMIN_RATE_LIMIT_RPS": "0",
            "TOKENHUB_MAX_BODY_MB": "1", **variables,
        }
    )  # fmt: skip
    made: list[Upstream] = []

    def make(*args: Any, **options: Any) -> Upstream:
        made.append(Upstream(*args, **options))
        return made[-1]

    simulator = Simulator()
    simulator.start()
    shared = host.prepare(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenhub.factory.Upstream", make)
        app = create_app(settings, shared)
    try:
        yield World(app, simulator)
    finally:
        app.on_stop()
        app.services.database.close()
        for upstream in made:
            upstream.close()
        for fd in shared.locks:
            os.close(fd)
        simulator.stop()

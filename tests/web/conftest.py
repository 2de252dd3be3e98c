"""An app for each test: a fresh data directory, SQLite at head, nothing in the background."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tokenhub import host
from tokenhub.config import Settings
from tokenhub.db import DatabaseAway
from tokenhub.factory import create_app
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream
from tokenhub.web.hub import Hub

ADMIN_TOKEN = "admin-token-of-the-tests"
METRICS_TOKEN = "metrics-token-of-the-tests"
PASSWORD = "correct horse battery staple"
PROVIDER_KEY = "sk-planted-provider-key"

Json = dict[str, Any]


class Admin:
    """The admin API as somebody with the token uses it."""

    def __init__(self, client: FlaskClient) -> None:
        self._client = client
        self.headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}

    def send(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The response; `path` is below /admin/v1/."""
        more = {} if body is None else {"json": body}
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.open(
            f"/admin/v1/{path}",
            method=method,
            headers={**self.headers, **said},
            **more,  # type: ignore[arg-type]
        )

    def ok(self, method: str, path: str, body: object = None) -> Json:
        """The answer, which must be 200."""
        response = self.send(method, path, body)
        assert response.status_code == 200, response.text
        found: Json = response.get_json()
        return found

    def refused(self, method: str, path: str, body: object = None) -> tuple[int, str, str | None]:
        """Status, code and param of a refusal, which must be in the envelope."""
        response = self.send(method, path, body)
        assert response.content_type == "application/json"
        error = response.get_json()["error"]
        assert error["message"]
        return response.status_code, error["code"], error["param"]

    def provider(self, provider_id: str = "acme", **fields: object) -> Json:
        """Post a provider."""
        body = {"id": provider_id, "base_url": "https://api.example.com", **fields}
        return self.ok("POST", "providers", body)

    def model(self, model_id: str = "small", **fields: object) -> Json:
        """Post a model."""
        return self.ok("POST", "models", {"id": model_id, "provider_id": "acme", **fields})

    def find(self, noun: str, entity_id: str) -> Json | None:
        """One row of a list, by id."""
        listed = self.ok("GET", noun)
        rows: list[Json] = listed["keys" if noun == "apikeys" else "items"]
        return next((row for row in rows if row["id"] == entity_id), None)

    def metrics(self) -> str:
        """The metrics as text."""
        return self._client.get("/metrics", headers=self.headers).text

    def unlock(self) -> Json:
        """Open the vault, or set it up."""
        return self.ok("POST", "vault/unlock", {"admin_password": PASSWORD})


@pytest.fixture
def environ(tmp_path: Path, sqlite_template: Path) -> dict[str, str]:
    """The variables of a gateway with a database at head."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    shutil.copy(sqlite_template, data / "tokenhub.sqlite")
    return {
        "TOKENHUB_DATA_DIR": str(data),
        "TOKENHUB_ADMIN_TOKEN": ADMIN_TOKEN,
        "TOKENHUB_METRICS_TOKEN": METRICS_TOKEN,
        "TOKENHUB_CREDENTIALS_FILE": str(data / "credentials"),
        "TOKENHUB_DEMO": "true",
        "TOKENHUB_RATE_LIMIT_RPS": "0",
        "TOKENHUB_ADMIN_RATE_LIMIT_RPS": "0",
    }


@pytest.fixture
def upstreams(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes the connections to providers that apps leave open: theirs end with their process."""
    made: list[Upstream] = []

    def make(*args: Any, **options: Any) -> Upstream:
        made.append(Upstream(*args, **options))
        return made[-1]

    monkeypatch.setattr("tokenhub.factory.Upstream", make)
    yield
    for each in made:
        each.close()


@pytest.fixture
def make_app(environ: dict[str, str], upstreams: None) -> Iterator[Callable[..., Hub]]:
    """Builds apps, with other settings if given; they are workers of one host."""
    shared = host.prepare(Settings.from_env(environ))
    made: list[Hub] = []

    def make(**variables: str) -> Hub:
        made.append(create_app(Settings.from_env({**environ, **variables}), shared))
        return made[-1]

    yield make
    for app in made:
        app.on_stop()
        app.services.database.close()
    for fd in shared.locks:
        os.close(fd)


@pytest.fixture(autouse=True)
def no_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers that are saved have made-up names: nobody outside is asked about them."""

    def resolve(_host: str, _longest_secs: float) -> list[str]:
        raise OSError("no such name")

    monkeypatch.setattr("tokenhub.web.admin.providers.resolve", resolve)


@pytest.fixture
def app(make_app: Callable[..., Hub]) -> Hub:
    """One worker's app."""
    return make_app()


@pytest.fixture
def client(app: Hub) -> FlaskClient:
    """Speaks HTTP to the app."""
    return app.test_client()


@pytest.fixture
def admin(client: FlaskClient) -> Admin:
    """The admin API."""
    return Admin(client)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A provider on loopback."""
    found = Simulator()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def make_key(admin: Admin) -> Callable[..., str]:
    """Issues an API key; returns its token."""

    def make(**fields: object) -> str:
        token: str = admin.ok("POST", "apikeys", {"name": "test", **fields})["key"]
        return token

    return make


@pytest.fixture
def database_away(app: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes the database away from the app: `"read"`, `"write"` or both."""

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("the database is away")

    def take(*ways: str) -> None:
        for way in ways:
            monkeypatch.setattr(app.services.database, way, away)

    return take

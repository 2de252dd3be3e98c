"""Databases for whole gateways: SQLite always, Postgres where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Gateway, running


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a gateway of this test keeps its data; empty at first."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.sqlite'}"
    server = request.getfixturevalue("postgres_server")
    return str(server.create_database())


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Two workers, one simulated provider, three models, one key; on SQLite."""
    with running(tmp_path, f"sqlite:///{tmp_path / 'hub.sqlite'}") as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway on SQLite that the tests of one module share; they must not change it."""
    directory = tmp_path_factory.mktemp("shared")
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}") as found:
        yield found

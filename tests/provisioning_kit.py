"""A gateway's credentials file and its catalog, with providers that list what a test says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gevent

from tests.newest import list_audit
from tokenhub import store
from tokenhub.board import Board
from tokenhub.catalog import Catalog
from tokenhub.config import Settings
from tokenhub.credentials import Credentials
from tokenhub.db import Database
from tokenhub.domain import Model, Provider, RoutingDefaults
from tokenhub.errors import ProviderError
from tokenhub.providers.base import ModelListing, Target, Timeouts
from tokenhub.provisioning import Provisioner
from tokenhub.store import FileEntry
from tokenhub.web.admin.credentials import rules

KEY = "sk-canary-of-the-file"


def file_rules(tmp_path: Path, **variables: str) -> Any:
    """The rules of a gateway."""
    return rules(Settings.from_env({"TOKENHUB_DATA_DIR": str(tmp_path), **variables}))


def write(path: Path, content: object, mode: int = 0o600) -> None:
    """Write the file as careful editors do: all at once."""
    fresh = path.with_name("fresh")
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.replace(path)


class Lister:
    """An adapter that knows how to list, and nothing else."""

    def __init__(self) -> None:
        self.listed: dict[str, list[str] | str] = {}
        self.asked: list[Target] = []

    def list_models(self, target: Target, timeouts: Timeouts) -> list[ModelListing]:
        self.asked.append(target)
        gevent.sleep(0)
        found = self.listed.get(target.provider_id, [])
        if isinstance(found, str):
            raise ProviderError("it did not say", error_class=found)
        return [ModelListing(each) for each in found]


class Hub:
    """One leader with its own view of the catalog."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self.database = database
        self.lister = Lister()
        self.file = Credentials(path, file_rules(path.parent))
        self.catalog = Catalog(
            database=database,
            board=Board(slots=1),
            defaults=RoutingDefaults(),
            adapter_types=["openai", "vllm"],
            with_demo=True,
        )
        self.provisioner = Provisioner(
            file=self.file,
            catalog=self.catalog,
            database=database,
            adapters={"openai": self.lister, "vllm": self.lister},  # type: ignore[dict-item]
            secret_of=lambda provider: (
                self.file.get_key(provider.id) if provider.cred_store == "file" else None
            ),
        )

    def write(self, **content: object) -> None:
        """Write the file and let the leader see it."""
        write(self.path, content)
        self.tick()

    def tick(self) -> None:
        """What the leader does from time to time, until its providers have answered."""
        for _ in range(3):
            self.provisioner.tick()
            gevent.sleep(0.01)

    def provider(self, name: str = "acme") -> Provider | None:
        return self.database.read(lambda connection: store.find_provider(connection, name))

    def model(self, name: str = "small") -> Model | None:
        return self.database.read(lambda connection: store.find_model(connection, name))

    def models(self) -> list[str]:
        found, _ = self.database.read(lambda connection: store.list_models(connection, 1000, 0))
        return [each.id for each in found]

    def save(self, thing: Provider | Model) -> None:
        """What an operator does through the API."""

        def work(connection: Any) -> None:
            if isinstance(thing, Provider):
                store.save_provider(connection, thing, 1)
            else:
                store.save_model(connection, thing, 1)
            store.record_change(
                connection, "provider" if isinstance(thing, Provider) else "model", thing.id, 1
            )

        self.database.write(work)
        self.catalog.poll()

    def delete(self, kind: str, name: str) -> None:
        """What an operator does through the API."""
        remove = {"provider": store.delete_provider, "model": store.delete_model}[kind]

        def work(connection: Any) -> None:
            assert remove(connection, name)
            store.record_change(connection, kind, name, 1)

        self.database.write(work)
        self.catalog.poll()

    def entries(self) -> dict[str, FileEntry]:
        found = self.database.read(store.list_file_entries)
        return {f"{each.kind} {each.id}": each for each in found}

    def audit(self) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = self.database.read(
            lambda connection: [dict(row) for row in list_audit(connection, 1000, 0)]
        )
        return found

    def generation(self) -> int:
        return self.database.read(store.load_generation)

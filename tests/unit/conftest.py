"""What several unit tests build on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.gateway_kit import Step, World


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes gateways whose providers answer from a script; closes their journals at the end."""
    made: list[World] = []

    def make(**scripts: list[Step]) -> World:
        made.append(World(tmp_path, scripts))
        return made[-1]

    yield make
    for world in made:
        world.journal.close()

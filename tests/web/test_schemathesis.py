"""Requests made up from the description of the API, right ones and wrong ones: each is answered as
described, and none with a fault of ours."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from tests.web.openapi import Description
from tests.web.openapi_cases import ADMIN, CASES, KEY, METRICS, A, Ask
from tests.web.test_openapi_answers import World, check
from tests.web.test_openapi_answers import app as app
from tests.web.test_openapi_answers import world as world
from tokenhub.providers.names import Names

FEW, MANY = 4, 300
"""Cases of each kind and operation: with every push, and in the rehearsal."""

SCHEMA = schemathesis.openapi.from_dict(Description().doc)
OPERATIONS = {
    f"{found.method.upper()} {found.path}": found
    for found in (each.ok() for each in SCHEMA.get_all_operations() if isinstance(each, Ok))
}

NOT_ALONE = {f"POST {A}/admin-token/rotate", f"DELETE {A}/session"}
"""What takes from the test itself what it comes in with."""
SENT_HEADERS = ("If-Match", "Idempotency-Key", "X-Idempotency-Key")


@pytest.fixture(autouse=True)
def nobody_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up hosts are not asked for, and made-up addresses not called."""

    def find(_: Names, host: str, port: int) -> list[Any]:
        if host == "127.0.0.1":
            return [(2, (host, port))]
        raise OSError("no such name")

    monkeypatch.setattr(Names, "find", find)


def who_asks(operation: str) -> str:
    """Whose token opens an operation."""
    return METRICS if operation == "GET /metrics" else ADMIN if A in operation else KEY


def send(world: World, operation: str, case: Case[Any]) -> Any:
    """The answer to a case, which must be as described."""
    kwargs = case.as_transport_kwargs(base_url="http://localhost")
    url = urlsplit(kwargs["url"])
    headers = {
        name: value
        for name, value in (kwargs.get("headers") or {}).items()
        if name.startswith(("X-TokenHub", *SENT_HEADERS))
    }
    params = kwargs.get("params")
    query = dict(params) if isinstance(params, dict) else {}
    if operation.endswith("/events"):
        query["secs"] = 0  # else it would not end
    return world.client.open(
        url.path or "/",
        method=kwargs["method"],
        query_string=query,
        headers={**headers, "Authorization": f"Bearer {world.tokens[who_asks(operation)]}"},
        json=kwargs.get("json"),
    )


def drive(world: World, operation: str, mode: GenerationMode, count: int) -> None:
    """Send made-up cases of an operation."""
    ids = {"id": [*_known_ids(world, operation)]}

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[operation].as_strategy(generation_mode=mode))
    def each(case: Case[Any]) -> None:
        if mode is GenerationMode.POSITIVE and ids["id"] and len(case.path_parameters or {}) == 1:
            [name] = case.path_parameters
            case.path_parameters[name] = ids["id"][0]
        assume(all((case.path_parameters or {}).values()))  # with an empty id it is another path
        response = send(world, operation, case)
        assert response.status_code != 500, response.text
        check(operation, response)

    each()


def _known_ids(world: World, operation: str) -> list[str]:
    """An id that there is, as the first case of the operation has it."""
    path = CASES[operation][0].path.format(key=world.key_id, team=world.team_id)
    template = operation.partition(" ")[2]
    before, brace, after = template.partition("{")
    if not brace:
        return []
    rest = after.partition("}")[2]
    return [path.partition("?")[0].removeprefix(before).removesuffix(rest)]


def run(world: World, count: int) -> None:
    world.open_vault()
    faults = {}
    for operation in sorted(OPERATIONS.keys() - NOT_ALONE):
        for mode in GenerationMode:
            try:
                drive(world, operation, mode, count)
            except Unsatisfiable:  # there is no wrong request where nothing is asked for
                continue
            except Exception as error:  # noqa: BLE001 - each operation has its say
                faults[operation, mode.value] = str(error)[:1000]
    assert faults == {}


def test_made_up_requests_are_answered_as_described(world):
    run(world, FEW)


@pytest.mark.rehearse
def test_many_made_up_requests_are_answered_as_described(world):
    run(world, MANY)


def test_every_operation_is_read(world):
    assert set(OPERATIONS) == set(CASES)
    assert isinstance(CASES[f"GET {A}/info"][0], Ask)

"""Every change is in the audit: who, from where, by which request, before and after, no secret."""

from __future__ import annotations

import orjson
import pytest

from tests.newest import list_audit
from tests.web.conftest import ADMIN_TOKEN
from tests.web.openapi_cases import CASES, A
from tests.web.test_openapi_answers import World

CHANGES_NOTHING = {
    f"POST {A}/routing/simulate",
    f"POST {A}/providers/test",
    f"DELETE {A}/session",  # by a token, which has none
    f"DELETE {A}/sessions/{{id}}",  # of one that is not there; others: test_admin_sessions
}
CHANGES = [
    name for name in CASES
    if A in name and not name.startswith("GET ") and name not in CHANGES_NOTHING
]  # fmt: skip


@pytest.fixture
def app(make_app, tmp_path):
    table = tmp_path / "prices.json"
    table.write_text('{"sim-fast": {"input_cost_per_token": 0.000001}}')
    return make_app(TOKENHUB_PRICING_SOURCE=str(table))


@pytest.fixture
def world(app, simulator) -> World:
    return World(app, simulator.url)


def audit(app) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = app.services.database.read(
        lambda connection: list_audit(connection, 1000, 0)
    )
    return rows


@pytest.mark.parametrize("operation", CHANGES)
def test_a_change_is_written_down_with_who_made_it(operation, world):
    if "vault" in operation and "unlock" not in operation:
        world.open_vault()
    world.admin.model("sim-fast", pricing_source="litellm")  # whose price an import changes
    known = {row["id"] for row in audit(world.app)}
    response = world.ask(operation, CASES[operation][0])
    assert response.status_code == 200, response.text
    rows = [row for row in audit(world.app) if row["id"] not in known]
    assert rows, operation
    for row in rows:
        assert row["actor"] == "admin", row
        assert str(row["client_ip"]).startswith("10.0."), row
        assert row["request_id"] == response.headers["X-Request-Id"]
        assert ADMIN_TOKEN not in str(row)
        if row["detail"]:
            assert {"before", "after"} <= orjson.loads(str(row["detail"])).keys(), row


def test_there_is_nothing_that_changes_without_a_case():
    assert len(CHANGES) > 15

"""What tests of budgets through HTTP share: money that was spent, administrators by role."""

from __future__ import annotations

from typing import Any

from tests.web.conftest import Admin, Json
from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.budgets import accounts_of
from tokenhub.pricing import nanos_from_usd


class Money:
    """The books, with the admin API in front of them."""

    def __init__(self, app: Any, admin: Admin) -> None:
        self.app, self.admin = app, admin

    def key(self, **fields: object) -> str:
        """The id of a new key."""
        found: str = self.admin.ok("POST", "apikeys", {"name": "test", **fields})["id"]
        return found

    def team(self, name: str = "Ops") -> str:
        """The id of a new team."""
        found: str = self.admin.ok("POST", "teams", {"name": name})["team"]["id"]
        return found

    def spend(self, kind: str, id_: str, usd: float, at: int | None = None) -> None:
        """As if a request had cost so much."""
        charge = store.Charge(nanos_from_usd(usd), 0, 1)
        charges = dict.fromkeys(accounts_of(kind, id_, at or unix_ms()), charge)
        self.app.services.database.write(
            lambda connection: store.charge_ledgers(connection, "host_x", charges)
        )

    def put(self, kind: str, id_: str, period: str, **fields: object) -> Json:
        """Set a budget; returns it as it is answered."""
        found: Json = self.admin.ok("PUT", f"budgets/{kind}/{id_}/{period}", fields)["budget"]
        return found

    def find(self, kind: str, id_: str) -> dict[str, Json]:
        """A subject's budgets by their periods."""
        path = f"budgets?subject_kind={kind}&subject_id={id_}"
        return {each["period"]: each for each in self.admin.ok("GET", path)["budgets"]}

    def as_role(self, role: str) -> Admin:
        """Somebody with a token of that role."""
        made = self.admin.ok("POST", "tokens", {"name": f"the-{role}", "role": role})
        found = Admin(self.app.test_client())
        found.headers = {"Authorization": f"Bearer {made['token']}"}
        return found

"""What tests of the views share: traffic of now, a host that says how it stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.web.test_admin_views import record
from tokenhub import __version__, store
from tokenhub.domain import Attempt, Usage
from tokenhub.store import HostState

DAY_MS = 86_400_000
COST = 1_500_000


def ago(secs: float) -> int:
    return int((time.time() - secs) * 1000)


def beat(app: Any, state: HostState | None = HostState(), **fields: Any) -> None:  # noqa: B008
    """A host says that it lives: this one, unless another id is given."""
    values: dict[str, Any] = {
        "host_id": app.services.host_id, "name": "here", "version": __version__, "workers": 2,
        "started_at": ago(900), "state": state, **fields,
    }  # fmt: skip
    app.services.database.write(partial(store.beat_host, **values))


def attempt(error: str = "", *, model: str = "small", cost: int | None = COST) -> Attempt:
    """A call that came to nothing, or to something."""
    if error:
        return Attempt(model, "acme", 1, 40, None, 500, error, Usage(), 0, 1)
    return Attempt(model, "acme", 1, 40, 12, 200, "", Usage(100, 20), cost, 1)


Traffic = Callable[..., None]


def sender(app: Any) -> Traffic:
    """Records requests, `count` of them alike."""
    numbers = iter(range(10_000))

    def send(count: int = 1, **fields: Any) -> None:
        for _ in range(count):
            fields.setdefault("started_at", ago(5))
            if fields.get("ending") in ("failed", "cut"):
                fields.setdefault("attempts", [attempt("server_error")])
                fields.setdefault("error_class", "server_error")
            record(app, **{"request_id": f"r{next(numbers)}", **fields})

    return send

"""What the views answer, as `openapi_reads`; a third of a case is its body."""

from __future__ import annotations

from typing import Any

A = "/admin/v1"
IDLE = f"{A}/attention/provider_without_models:provider:idle/snooze"
NONE = f"{A}/attention/none/snooze"
VIEWS: dict[str, list[tuple[Any, ...]]] = {
    f"GET {A}/overview": [
        (f"{A}/overview", 200),
        (f"{A}/overview?cmp=0&from=1700000000&to=1700086400", 200),
        (f"{A}/overview?cmp=2", 400),
    ],
    f"GET {A}/attention": [(f"{A}/attention", 200), (f"{A}/attention?x=1", 400)],
    f"GET {A}/setup": [(f"{A}/setup", 200), (f"{A}/setup?x=1", 400)],
    f"GET {A}/usage": [
        (f"{A}/usage", 200),
        (f"{A}/usage?group=model&step=month&from=1600000000&to=1700086400", 200),
        (f"{A}/usage?group=tag", 200),
        (f"{A}/usage?format=csv", 200),
        (f"{A}/usage?format=jsonl&group=team&step=hour", 200),
        (f"{A}/usage?group=colour", 400),
    ],
    f"POST {A}/attention/{{id}}/snooze": [
        (IDLE, 200, {"for": "1h"}),
        (IDLE, 200, {"for": 90}),
        (IDLE, 400, {"for": 9}),
        (NONE, 404, {"for": "1h"}),
    ],
    f"DELETE {A}/attention/{{id}}/snooze": [(IDLE, 200), (f"{A}/attention/a%00b/snooze", 404)],
}

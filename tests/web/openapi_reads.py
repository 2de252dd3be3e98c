"""Reads of the admin API, each with the status that its answer must have: cases as in
`openapi_cases`, of those that take no more than a path."""

from __future__ import annotations

A = "/admin/v1"
READS: dict[str, list[tuple[str, int]]] = {
    f"GET {A}/events": [
        (f"{A}/events?secs=0", 200),
        (f"{A}/events?secs=0&types=route_error,heartbeat&outcome=failed&rate_max=60", 200),
        (f"{A}/events?types=everything", 400),
        (f"{A}/events?last_event_id=x", 400),
    ],
    f"GET {A}/health/transitions": [
        (f"{A}/health/transitions", 200),
        (f"{A}/health/transitions?provider=acme&format=csv", 200),
        (f"{A}/health/transitions?limit=0", 400),
    ],
    f"GET {A}/logs": [
        (f"{A}/logs", 200),
        (f"{A}/logs?outcome=answered,failed&status=2xx&limit=3&from=2020-01-01T00:00:00Z", 200),
        (f"{A}/logs?format=csv", 200),
        (f"{A}/logs?format=jsonl&key=nobody", 200),
        (f"{A}/logs?limit=x", 400),
        (f"{A}/logs?modell=x", 400),
    ],
    f"GET {A}/logs/histogram": [
        (f"{A}/logs/histogram?from=1700000000&to=1700086400", 200),
        (f"{A}/logs/histogram?stream=true", 200),
        (f"{A}/logs/histogram?step_secs=7", 400),
    ],
    f"GET {A}/logs/facets": [
        (f"{A}/logs/facets?field=model&from=1700000000&to=1700086400", 200),
        (f"{A}/logs/facets?field=status&from=1700000000&to=1700086400", 200),
        (f"{A}/logs/facets", 400),
    ],
    f"GET {A}/audit": [
        (f"{A}/audit?limit=5", 200),
        (f"{A}/audit?action=model.upsert&format=csv", 200),
        (f"{A}/audit?offset=-1", 400),
    ],
    f"GET {A}/rewards": [
        (f"{A}/rewards", 200),
        (f"{A}/rewards?success=true&token_bucket=small", 200),
        (f"{A}/rewards?token_bucket=huge", 400),
    ],
    f"GET {A}/decisions/{{request_id}}": [
        (f"{A}/decisions/req_1", 200),
        (f"{A}/decisions/req_none", 404),
    ],
}

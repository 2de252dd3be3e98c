"""Requests about breakers, probes, trials of providers and workflows, each with the status that its
answer must have and its body: cases as in `openapi_cases`."""

from __future__ import annotations

from typing import Any

A = "/admin/v1"
WHY = {"reason": "maintenance"}
BREAKERS: dict[str, list[tuple[str, int, Any]]] = {
    f"GET {A}/breakers": [
        (f"{A}/breakers", 200, None),
        (f"{A}/breakers?held=false&limit=2&offset=1", 200, None),
        (f"{A}/breakers?held=maybe", 400, None),
    ],
    f"POST {A}/breakers/{{id}}/cool": [
        (f"{A}/breakers/model:small/cool", 200, WHY),
        (f"{A}/breakers/model:with/slashes/cool", 200, {"secs": 60, **WHY}),
        (f"{A}/breakers/model:small/cool", 400, {"secs": 60}),
        (f"{A}/breakers/small/cool", 404, WHY),
    ],
    f"POST {A}/breakers/{{id}}/clear": [
        (f"{A}/breakers/provider:acme/clear", 200, WHY),
        (f"{A}/breakers/model:with%2Fslashes/clear", 200, None),
        (f"{A}/breakers/host:acme/clear", 404, None),
    ],
    f"POST {A}/providers/{{id}}/probe": [
        (f"{A}/providers/acme/probe", 200, WHY),
        (f"{A}/providers/gone/probe", 200, None),
        (f"{A}/providers/none/probe", 404, None),
    ],
    f"POST {A}/providers/test": [
        (f"{A}/providers/test", 200, {"base_url": "http://127.0.0.1:9"}),
        (f"{A}/providers/test", 200, {"base_url": "http://169.254.169.254", "api_key": "s"}),
        (f"{A}/providers/test", 400, {"base_url": "ftp://x"}),
    ],
    f"GET {A}/workflows": [
        (f"{A}/workflows?limit=5&status=FAILED", 200, None),
        (f"{A}/workflows?status=done", 400, None),
    ],
    f"GET {A}/workflows/{{id}}": [
        (f"{A}/workflows/a", 200, None),
        (f"{A}/workflows/a?x=1", 400, None),
    ],
    f"GET {A}/workflows/{{id}}/history": [
        (f"{A}/workflows/a/history", 200, None),
        (f"{A}/workflows/a%00b/history", 404, None),
    ],
}

"""Statistics and time series, as in `openapi_reads`."""

from __future__ import annotations

A = "/admin/v1"
SERIES: dict[str, list[tuple[str, int]]] = {
    f"GET {A}/stats": [
        (f"{A}/stats", 200),
        (f"{A}/stats?group=model,provider&order=failed_attempts&limit=5", 200),
        (f"{A}/stats?group=key,outcome&window=1h&model=small", 200),
        (f"{A}/stats?from=1700000000&to=1700086400", 200),
        (f"{A}/stats?window=2h", 400),
        (f"{A}/stats?group=colour", 400),
    ],
    f"GET {A}/tsdb/metrics": [(f"{A}/tsdb/metrics", 200), (f"{A}/tsdb/metrics?x=1", 400)],
    f"GET {A}/tsdb/query": [
        (f"{A}/tsdb/query?metric=latency", 200),
        (f"{A}/tsdb/query?metric=tokens&group=key,alias,team&fill=zero&top=3&other=1", 200),
        (f"{A}/tsdb/query?metric=attempts&agg=sum&step=60000&fill=null", 200),
        (f"{A}/tsdb/query?metric=latency&agg=p95&group=&start=2020-01-01T00:00:00Z", 200),
        (f"{A}/tsdb/query", 400),
        (f"{A}/tsdb/query?metric=cost&start=soon", 400),
    ],
}

"""Fills a database with as many requests as an installation has after months, in minutes.

The rows are made by the database itself, by arithmetic on their number, so that the same number
makes the same row on SQLite and Postgres. Few keys ask much and many little; each keeps to three
models, a mode and an endpoint. Hours and days are made up on the same pattern, not summed from the
rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Boolean, Connection, String, Table, Text, create_engine
from sqlalchemy import text as sql

from tokenhub.db import catalog_tables, sums_tables, traffic_tables
from tokenhub.db.budget_tables import budget_ledgers
from tokenhub.db.columns import metadata
from tokenhub.db.sums_tables import ATTEMPTS, FAMILIES, REQUESTS, Family

HOST = "host-big"
DAYS = 90
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MODELS, PROVIDERS, TEAMS = 40, 6, 20
CHUNK = 500_000

FILLED = (
    traffic_tables.request_logs, traffic_tables.attempts, traffic_tables.feedback,
    traffic_tables.events, catalog_tables.audit_logs, sums_tables.buckets,
    sums_tables.rollup_hours, sums_tables.rollup_days, sums_tables.attempt_buckets,
    sums_tables.attempt_hours, sums_tables.attempt_days, sums_tables.rollup_weeks,
    sums_tables.attempt_weeks,
)  # fmt: skip


def model_id(number: int) -> str:
    return f"model-{number}"


def provider_id(number: int) -> str:
    return f"provider-{number}"


def key_id(number: int) -> str:
    return f"key_{number}"


def request_id(number: int) -> str:
    """The id of the row of that number, which begins with 1."""
    return f"req_{'0' * 22}{1_000_000_000 + number}"


@dataclass(frozen=True)
class Size:
    """How much there is.

    Args:
        rows: requests, spread evenly over 90 days.
        end_at: when the last one began; unix ms.
        keys: how many there are, who asked the more the lower their number.
    """

    rows: int
    end_at: int
    keys: int = 200

    @property
    def begin_at(self) -> int:
        return self.end_at - DAYS * DAY_MS


def fill(dsn: str, size: Size) -> None:
    """Fill a database at head; nothing else may use it meanwhile."""
    engine = create_engine(dsn)
    is_sqlite = engine.dialect.name == "sqlite"
    try:
        with engine.connect() as connection:
            if is_sqlite:  # nothing of it is worth a journal
                for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -500000",
                               "temp_store = MEMORY"):  # fmt: skip
                    connection.exec_driver_sql(f"PRAGMA {pragma}")
            indexes = [index for table in FILLED for index in table.indexes]
            for index in indexes:  # quicker made in the end, in one go
                index.drop(connection)
            for statement in _statements(size):
                connection.execute(sql(statement.replace(":", r"\:")))  # none is a parameter
                connection.commit()
            for index in indexes:
                index.create(connection)
                connection.commit()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _settle(connection, is_sqlite=is_sqlite)
    finally:
        engine.dispose()


def _settle(connection: Connection, *, is_sqlite: bool) -> None:
    """What the database does by itself sooner or later."""
    if is_sqlite:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    else:
        connection.exec_driver_sql("VACUUM ANALYZE")


def _statements(size: Size) -> Iterator[str]:
    for first in range(1, size.rows + 1, CHUNK):
        last = min(first + CHUNK - 1, size.rows)
        of = _requests(size, first, last)
        yield _insert(traffic_tables.request_logs, _log(size), of)
        yield _insert(traffic_tables.attempts, _attempt(), of)
    few = max(1, size.rows // 100)
    yield _insert(traffic_tables.feedback, _feedback(), _requests(size, 1, few, every=100))
    yield _insert(traffic_tables.events, _event(), _requests(size, 1, few, every=100))
    yield _insert(catalog_tables.audit_logs, _audit(), _requests(size, 1, few, every=100))
    yield _insert(budget_ledgers, _ledger(size), _grid(size, DAYS, 1))
    yield _insert(sums_tables.rollup_hours, _hour(size), _grid(size, DAYS * 24, 3))
    days = {"start_at": f"start_at / {DAY_MS} * {DAY_MS}"}
    yield _group(REQUESTS.days, REQUESTS, "rollup_hours", days)
    yield _group(ATTEMPTS.hours, ATTEMPTS, "rollup_hours", {"start_at": "start_at"})
    yield _group(ATTEMPTS.days, ATTEMPTS, ATTEMPTS.hours, days)
    weeks = {"start_at": f"start_at / {7 * DAY_MS} * {7 * DAY_MS}"}
    for family in FAMILIES:
        yield _group(family.weeks, family, family.days, weeks)
    for family in FAMILIES:
        yield _buckets(family, size)


def _numbers(first: int, last: int, name: str = "n") -> str:
    return (
        f"{name}(i) AS (SELECT CAST({first} AS BIGINT) UNION ALL"
        f" SELECT i + 1 FROM {name} WHERE i < {last})"
    )


_HASHED = "(i * 2654435761) % 4294967296"
_KEY = "(h % {keys}) * (h / 256 % {keys}) / {keys}"
_MODEL = f"(k * 7 + v * 13) % {MODELS}"


def _requests(size: Size, first: int, last: int, every: int = 1) -> str:
    """Numbers of requests (i), with a hash (h), a key (k), one of its models (v, m) and a time."""
    span_ms = DAYS * DAY_MS
    return f"""
    (WITH RECURSIVE {_numbers(first, last)}
     SELECT i, h, k, v, m, e, {size.begin_at} + i * {span_ms} / {size.rows} AS at FROM (
       SELECT *, {_MODEL} AS m FROM (
         SELECT i * {every} AS i, h, {_KEY.format(keys=size.keys)} AS k, h / 65536 % 3 AS v,
           h / 1024 % 1000 AS e
         FROM (SELECT i, {_HASHED} AS h FROM n) AS hashed) AS keyed) AS found) AS r"""


def _grid(size: Size, steps: int, variants: int) -> str:
    """Every step of time (s) with every key (k) and its models (v, m), and a hash (h)."""
    return f"""
    (WITH RECURSIVE {_numbers(0, steps - 1, "steps")}, {_numbers(0, size.keys - 1, "keys")},
       {_numbers(0, variants - 1, "variants")}
     SELECT s, k, v, h, m, h / 1024 % 1000 AS e FROM (
       SELECT s, k, v, {_MODEL} AS m,
         ((s * 1000 + k) * 3 + v + 1) * 2654435761 % 4294967296 AS h
       FROM (SELECT steps.i AS s, keys.i AS k, variants.i AS v
             FROM steps CROSS JOIN keys CROSS JOIN variants) AS crossed) AS found) AS r"""


_ENDING = """CASE WHEN e < 940 THEN 'answered' WHEN e < 960 THEN 'rescued'
 WHEN e < 975 THEN 'refused' WHEN e < 985 THEN 'failed' WHEN e < 990 THEN 'cut'
 ELSE 'client_closed' END"""
_ERROR = """CASE WHEN e < 960 THEN '' WHEN e < 975 THEN 'invalid_request'
 WHEN e < 980 THEN 'timeout' WHEN e < 990 THEN 'server_error' ELSE 'client_closed' END"""
_MODE = "CASE k % 4 WHEN 0 THEN 'normal' WHEN 1 THEN 'cheap' WHEN 2 THEN 'smart' ELSE 'fast' END"
_ENDPOINT = """CASE k % 3 WHEN 0 THEN '/v1/chat/completions' WHEN 1 THEN '/v1/messages'
 ELSE '/v1/embeddings' END"""
_WHO = {
    "api_key_id": "'key_' || k",
    "team_id": f"'team_' || (k % {TEAMS})",
    "model_id": "'model-' || m",
    "provider_id": f"'provider-' || (m % {PROVIDERS})",
    "mode": _MODE,
    "endpoint": _ENDPOINT,
    "ending": _ENDING,
    "error_class": _ERROR,
}
_USED = {
    "input_tokens": "100 + h % 4000",
    "output_tokens": "10 + h / 16 % 900",
    "cost_nanousd": "CASE WHEN h % 50 = 0 THEN NULL ELSE 1000 * (h % 5000) END",
}
_REQUEST_ID = f"'req_{'0' * 22}' || (1000000000 + i)"


def _log(size: Size) -> Mapping[str, str]:
    candidate = "'[\"model-' || m || '\",\"provider-' || (m % 6) || '\",0.73125,0.25,1250000]'"
    return {
        "host_id": f"'{HOST}'",
        "segment": "1",
        "position": "i",
        "request_id": _REQUEST_ID,
        "started_at": "at",
        **_WHO,
        **_USED,
        "stream": "h % 3 = 0",
        "status_code": "CASE WHEN e < 960 THEN 200 WHEN e < 975 THEN 400 WHEN e < 985 THEN 502"
        " WHEN e < 990 THEN 200 ELSE 499 END",
        "requested_model": "'model-' || m",
        "alias_from": "CASE WHEN h % 20 = 0 THEN 'fast' ELSE '' END",
        "reason": "'routed-hint-exact'",
        "latency_ms": "200 + h % 9000",
        "ttft_ms": "CASE WHEN h % 3 = 0 THEN 50 + h % 900 END",
        "overhead_us": "300 + h % 2000",
        "attempt_count": "CASE WHEN e BETWEEN 940 AND 959 THEN 2 ELSE 1 END",
        "client_ip": "'10.0.' || k || '.1'",
        "client_request_id": "CASE WHEN i % 100 = 0 THEN 'mine-' || i ELSE '' END",
        "skips": """CASE WHEN h % 20 = 1 THEN '{"model-1":"cooldown"}' ELSE '{}' END""",
        "decision": f"""'{{"candidates":[' || {candidate} || ',' || {candidate} || '],'
            || '"candidate_count":2,"policy":{{"mode":"normal","max_budget_nanousd":0,'
            || '"max_latency_ms":0}}}}'""",
    }


def _attempt() -> Mapping[str, str]:
    shared = {name: _WHO[name] for name in ("model_id", "provider_id", "error_class")}
    return {
        "host_id": f"'{HOST}'",
        "segment": "1",
        "position": "i",
        "request_id": _REQUEST_ID,
        **shared,
        **_USED,
        "duration_ms": "190 + h % 9000",
        "status": "CASE WHEN e < 960 THEN 200 WHEN e < 975 THEN 400 ELSE 502 END",
        "reason": "'routed-hint-exact'",
    }


def _feedback() -> Mapping[str, str]:
    return {
        "id": "i", "at": "at + 5000", "request_id": _REQUEST_ID, "api_key_id": "'key_' || k",
        "actor": "'key:key_' || k", "score": "CAST(h % 2 AS REAL)", "told_at": "at + 5000",
    }  # fmt: skip


def _event() -> Mapping[str, str]:
    return {"id": "i", "host_id": f"'{HOST}'", "at": "at", "type": "'health_change'",
            "fields": """'{"model_id":"model-' || m || '","new_state":"down"}'"""}  # fmt: skip


def _audit() -> Mapping[str, str]:
    return {"id": "i", "at": "at", "actor": "'admin'", "action": "'model.update'",
            "resource": "'model-' || m", "detail": "'{}'"}  # fmt: skip


def _ledger(size: Size) -> Mapping[str, str]:
    first = size.begin_at // DAY_MS * DAY_MS
    return {"subject_kind": "'key'", "subject_id": "'key_' || k", "period": "'day'",
            "start_at": f"{first} + s * {DAY_MS}", "spent_nanousd": "1000 * h",
            "requests": "1 + h % 1000"}  # fmt: skip


def _hour(size: Size) -> Mapping[str, str]:
    first = size.begin_at // HOUR_MS * HOUR_MS
    each = size.rows // (DAYS * 24 * size.keys * 3)
    requests = f"({each} + 1 + h % 3)"
    classes = {
        f"{letter}{number}": f"CASE WHEN h % 16 = {number} THEN {requests} ELSE 0 END"
        for letter in REQUESTS.histograms
        for number in range(sums_tables.HISTOGRAM)
    }
    return {
        "start_at": f"{first} + s * {HOUR_MS}",
        **_WHO,
        "requests": requests,
        "attempts": requests,
        "input_tokens": f"1000 * {requests}",
        "output_tokens": f"300 * {requests}",
        "cost_nanousd": f"1250000 * {requests}",
        "latency_ms_sum": f"900 * {requests}",
        "latency_ms_max": "900 + h % 5000",
        **classes,
    }


def _group(into: str, family: Family, source: str, renamed: Mapping[str, str]) -> str:
    """Rows of one table of sums, out of those of a finer one or of the other family."""
    columns = ["start_at", *family.key, *family.values]
    has = metadata.tables[source].c
    others = {"attempts": "requests", "duration_ms_sum": "latency_ms_sum",
              "duration_ms_max": "latency_ms_max"}  # fmt: skip

    def read(name: str) -> str:
        found = name if name in has else others[name]
        return f"{'MAX' if name in family.maxima else 'SUM'}({found})"

    start = renamed["start_at"]
    values = ", ".join((start, *family.key, *map(read, family.values)))
    return (
        f"INSERT INTO {into} ({', '.join(columns)}) SELECT {values} FROM {source}"
        f" GROUP BY {start}, {', '.join(family.key)}"
    )


def _buckets(family: Family, size: Size) -> str:
    """The last three days, to ten seconds; those of the last two minutes wait to be rolled up."""
    since = size.end_at - 3 * DAY_MS
    start = "started_at / 10000 * 10000"
    read = {
        "requests": "COUNT(*)", "attempts": "COUNT(*)", "input_tokens": "SUM(input_tokens)",
        "output_tokens": "SUM(output_tokens)", "cost_nanousd": "COALESCE(SUM(cost_nanousd), 0)",
        "latency_ms_sum": "SUM(latency_ms)", "latency_ms_max": "MAX(latency_ms)",
        "duration_ms_sum": "SUM(latency_ms)", "duration_ms_max": "MAX(latency_ms)",
        "h7": "COUNT(*)",
    }  # fmt: skip
    values = ", ".join(read.get(name, "0") for name in family.values)
    key = ", ".join(family.key)
    waiting = f"CASE WHEN {start} < {size.end_at - 120_000} THEN 1 ELSE 0 END"
    return (
        f"INSERT INTO {family.buckets} (host_id, start_at, {key}, rolled_at,"
        f" {', '.join(family.values)}) SELECT '{HOST}', {start}, {key}, {waiting}, {values}"
        f" FROM request_logs WHERE started_at >= {since} GROUP BY {start}, {key}"
    )


def _insert(table: Table, values: Mapping[str, str], source: str) -> str:
    """Rows out of a source; columns that nobody names hold nothing."""
    names = [each.name for each in table.c if each.name != "id" or "id" in values]
    read = ", ".join(values.get(name) or _nothing(table, name) for name in names)
    return f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {read} FROM {source}"


def _nothing(table: Table, name: str) -> str:
    column = table.c[name]
    if column.nullable:
        return "NULL"
    if isinstance(column.type, Boolean):
        return "1 = 0"
    return "''" if isinstance(column.type, String | Text) else "0"

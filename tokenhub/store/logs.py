"""What people look up afterwards: requests, their attempts, and who changed what."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, and_, insert, select

from tokenhub.db.catalog_tables import audit_logs
from tokenhub.db.traffic_tables import attempts, request_logs

IDENTITY = ("host_id", "segment", "position")
"""Where the journal had it: what makes a row of `request_logs` or `attempts` unique."""

LOG_COLUMNS = (
    "request_id", "started_at", "api_key_id", "endpoint", "mode", "stream", "ending",
    "status_code", "error_class", "requested_model", "alias_from", "model_id", "provider_id",
    "reason", "snapshot_version", "input_tokens", "output_tokens", "cache_read_tokens",
    "cache_write_tokens", "reasoning_tokens", "usage_is_estimate", "cost_nanousd",
    "price_version", "latency_ms", "ttft_ms", "overhead_us", "estimated_input_tokens",
    "response_bytes", "attempt_count", "client_ip", "client_request_id", "skips",
    "team_id",
)  # fmt: skip
"""What a request's row says, in the order of the journal's records."""

ATTEMPT_COLUMNS = (
    "model_id", "provider_id", "started_ms", "duration_ms", "ttft_ms", "status", "error_class",
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "reasoning_tokens", "usage_is_estimate", "cost_nanousd", "price_version",
)  # fmt: skip
"""What an attempt's row says, in the order of the journal's records."""


def list_logs(connection: Connection, limit: int, offset: int) -> list[dict[str, Any]]:
    """A page of the requests, newest first: all columns, `skips` as JSON text."""
    newest_first = (request_logs.c.started_at.desc(), request_logs.c.id.desc())
    query = select(request_logs).order_by(*newest_first).limit(limit).offset(offset)
    return _dicts(connection, query)


def list_attempts(connection: Connection, request_id: str) -> list[dict[str, Any]]:
    """A request's attempts in their order, all columns."""
    same = and_(*(attempts.c[name] == request_logs.c[name] for name in IDENTITY))
    query = (
        select(attempts)
        .join(request_logs, same)
        .where(request_logs.c.request_id == request_id)
        .order_by(attempts.c.seq)
    )
    return _dicts(connection, query)


def list_audit(connection: Connection, limit: int, offset: int) -> list[dict[str, Any]]:
    """A page of the audit, newest first, all columns."""
    newest_first = (audit_logs.c.at.desc(), audit_logs.c.id.desc())
    return _dicts(
        connection, select(audit_logs).order_by(*newest_first).limit(limit).offset(offset)
    )


def insert_audit(
    connection: Connection,
    *,
    at: int,
    actor: str,
    client_ip: str,
    action: str,
    resource: str,
    detail: str,
    request_id: str,
) -> None:
    """Write down who did what, in the transaction that does it."""
    statement = insert(audit_logs).values(
        at=at,
        actor=actor,
        client_ip=client_ip,
        action=action,
        resource=resource,
        detail=detail,
        request_id=request_id,
    )
    connection.execute(statement)


def _dicts(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]

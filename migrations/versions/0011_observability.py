"""Why each request went where it went, what attempts add up to, events, and what answers were worth.

Rewards are worked out from attempts when they are asked for, and points of time series from the
buckets: their tables, which nothing has been written into, go.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0011_observability"
down_revision = "0010_dialects"

INT = sa.BigInteger()
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WORD = sa.String()

KEY = ("model_id", "provider_id", "api_key_id", "team_id", "mode", "endpoint", "ending",
       "error_class", "alias_from")  # fmt: skip
SUMS = ("requests", "attempts", "input_tokens", "output_tokens", "cache_read_tokens",
        "cache_write_tokens", "reasoning_tokens", "cost_nanousd", "unpriced", "latency_ms_sum",
        "ttft_ms_sum", "ttft_count", "overhead_us_sum", "latency_ms_max", "ttft_ms_max",
        "overhead_us_max", *(f"{name}{each}" for name in "hto" for each in range(16)))  # fmt: skip

OLD_BUCKET_KEY = ("model_id", "provider_id", "api_key_id", "mode", "endpoint", "ending", "team_id")
OLD_ROLLUP_KEY = ("model_id", "provider_id", "api_key_id", "mode", "ending", "team_id")
OLD_SUMS = ("requests", "input_tokens", "output_tokens", "cost_nanousd", "unpriced",
            "latency_ms_sum", "ttft_ms_sum", "ttft_count",
            *(f"h{each}" for each in range(16)))  # fmt: skip

ATTEMPT_KEY = ("model_id", "provider_id", "error_class")
ATTEMPT_SUMS = ("attempts", "input_tokens", "output_tokens", "cost_nanousd", "unpriced",
                "duration_ms_sum", "ttft_ms_sum", "ttft_count", "duration_ms_max",
                *(f"{name}{each}" for name in "ht" for each in range(16)))  # fmt: skip

TABLES = ("buckets", "rollup_hours", "rollup_days")
ATTEMPT_TABLES = ("attempt_buckets", "attempt_hours", "attempt_days", "attempt_weeks")
WEEK_MS = 7 * 86_400_000


def upgrade() -> None:
    empty = sa.text("''")
    for column in (
        sa.Column("latency_budget_ms", INT, nullable=False, server_default="0"),
        sa.Column("trace_id", WORD, nullable=False, server_default=empty),
        sa.Column("decision", sa.Text(), nullable=False, server_default="{}"),
    ):
        op.add_column("request_logs", column)
    op.create_index("ix_request_logs_provider_id_started_at", "request_logs",
                    ["provider_id", "started_at"])  # fmt: skip
    _index_where("ix_request_logs_troubled", ["started_at", "id"], "ending <> 'answered'")
    _index_where("ix_request_logs_key_troubled", ["api_key_id", "started_at"],
                 "ending <> 'answered'")
    _index_where("ix_request_logs_named", ["client_request_id"], "client_request_id <> ''")
    for column in (
        sa.Column("reason", WORD, nullable=False, server_default=empty),
        sa.Column("next_step", WORD, nullable=False, server_default=empty),
        sa.Column("response_bytes", INT, nullable=False, server_default="0"),
    ):
        op.add_column("attempts", column)
    op.add_column("hosts", sa.Column("state", sa.Text(), nullable=False, server_default="{}"))
    _change_sums(OLD_SUMS, SUMS, {"buckets": OLD_BUCKET_KEY}, OLD_ROLLUP_KEY, KEY)
    _make_weeks()
    for name in ATTEMPT_TABLES:
        _make_sums(name, ATTEMPT_KEY, ATTEMPT_SUMS)
    op.drop_table("tsdb_points")
    op.drop_table("reward_logs")
    _make_rest()


def downgrade() -> None:
    for name in ("snoozes", "options", "feedback", "events", *ATTEMPT_TABLES, "rollup_weeks"):
        op.drop_table(name)
    _make_points()
    _make_rewards()
    _change_sums(SUMS, OLD_SUMS, {}, KEY, OLD_ROLLUP_KEY, buckets_to=OLD_BUCKET_KEY)
    op.drop_column("hosts", "state")
    for name in ("response_bytes", "next_step", "reason"):
        op.drop_column("attempts", name)
    for name in ("named", "key_troubled", "troubled", "provider_id_started_at"):
        op.drop_index(f"ix_request_logs_{name}", "request_logs")
    for name in ("decision", "trace_id", "latency_budget_ms"):
        op.drop_column("request_logs", name)


def _change_sums(
    old_sums: Sequence[str],
    new_sums: Sequence[str],
    old_keys: dict[str, Sequence[str]],
    old_key: Sequence[str],
    new_key: Sequence[str],
    *,
    buckets_to: Sequence[str] | None = None,
) -> None:
    """Give the sums other columns. SQLite cannot change a key, so they are made anew; what the old
    ones did not tell apart is "", and what they did not count 0."""
    for name in TABLES:
        before = _prefix(name) + tuple(old_keys.get(name, old_key))
        is_bucket = name == "buckets"
        key = tuple(buckets_to if is_bucket and buckets_to else new_key)
        kept_key = [each for each in (*_prefix(name), *key) if each in before]
        kept = [each for each in new_sums if each in old_sums]
        marks = ["rolled_at"] if is_bucket else []
        summed = [f"MAX({each})" if each.endswith("_max") else f"SUM({each})" for each in kept]
        group = ", ".join((*kept_key, *marks))
        op.execute(
            f"CREATE TABLE {name}_aside AS SELECT {group}, "
            + ", ".join(f"{each} AS {as_}" for each, as_ in zip(summed, kept, strict=True))
            + f" FROM {name} GROUP BY {group}"
        )
        op.drop_table(name)
        _make_sums(name, key, new_sums)
        columns = ", ".join((*_prefix(name), *key, *marks, *new_sums))
        values = ", ".join((
            *(each if each in kept_key else "''" for each in (*_prefix(name), *key)), *marks,
            *(each if each in kept else "0" for each in new_sums),
        ))  # fmt: skip
        op.execute(f"INSERT INTO {name} ({columns}) SELECT {values} FROM {name}_aside")
        op.drop_table(f"{name}_aside")


def _make_weeks() -> None:
    """Weeks of requests, out of their days."""
    _make_sums("rollup_weeks", KEY, SUMS)
    week = f"start_at / {WEEK_MS} * {WEEK_MS}"
    summed = (f"MAX({each})" if each.endswith("_max") else f"SUM({each})" for each in SUMS)
    op.execute(
        f"INSERT INTO rollup_weeks (start_at, {', '.join((*KEY, *SUMS))})"
        f" SELECT {', '.join((week, *KEY, *summed))} FROM rollup_days"
        f" GROUP BY {', '.join((week, *KEY))}"
    )


def _prefix(name: str) -> tuple[str, ...]:
    return ("host_id", "start_at") if "buckets" in name else ("start_at",)


def _make_sums(name: str, key: Sequence[str], sums: Sequence[str]) -> None:
    is_bucket = "buckets" in name
    words = [sa.Column(each, WORD, nullable=False) for each in key]
    start = sa.Column("start_at", INT, nullable=False)
    host = [sa.Column("host_id", WORD, nullable=False)] if is_bucket else []
    rolled = [sa.Column("rolled_at", INT, nullable=False, server_default="0")] if is_bucket else []
    keys = [*(each.name for each in host), "start_at", *key, *(each.name for each in rolled)]
    numbers = [sa.Column(each, INT, nullable=False) for each in sums]
    op.create_table(
        name, *host, start, *words, *rolled, *numbers, sa.PrimaryKeyConstraint(*keys, name=f"pk_{name}")
    )  # fmt: skip
    if is_bucket:
        op.create_index(f"ix_{name}_start_at", name, ["start_at"])
        op.create_index(f"ix_{name}_unrolled", name, ["start_at"],
                        sqlite_where=sa.text("rolled_at = 0"),
                        postgresql_where=sa.text("rolled_at = 0"))  # fmt: skip


def _index_where(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "request_logs", columns, sqlite_where=sa.text(where),
                    postgresql_where=sa.text(where))  # fmt: skip


def _make_rest() -> None:
    op.create_table(
        "events",
        _serial(),
        *_words("host_id"),
        _number("at"),
        *_words("type", "api_key_id"),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_at_id", "events", ["at", "id"])
    op.create_index("ix_events_type_at", "events", ["type", "at"])
    op.create_table(
        "feedback",
        _serial(),
        _number("at"),
        *_words("request_id", "api_key_id", "actor"),
        sa.Column("score", sa.Float(), nullable=False),
        *_words("label"),
        sa.Column("told_at", INT, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_request_id", "feedback", ["request_id"])
    op.create_index("ix_feedback_at_id", "feedback", ["at", "id"])
    op.create_index("ix_feedback_untold", "feedback", ["at"], sqlite_where=sa.text("told_at = 0"),
                    postgresql_where=sa.text("told_at = 0"))  # fmt: skip
    op.create_table(
        "options", *_words("name", "value"), _number("updated_at"),
        sa.PrimaryKeyConstraint("name", name="pk_options"),
    )  # fmt: skip
    op.create_table(
        "snoozes", *_words("subject"), _number("until_at"), *_words("actor"),
        sa.PrimaryKeyConstraint("subject", name="pk_snoozes"),
    )  # fmt: skip


def _make_points() -> None:
    op.create_table(
        "tsdb_points",
        _serial(),
        _number("at"),
        *_words("metric", "model_id", "provider_id"),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tsdb_points"),
    )
    for columns in (["at"], ["metric", "at"], ["metric", "model_id", "provider_id", "at"]):
        op.create_index(f"ix_tsdb_points_{'_'.join(columns)}", "tsdb_points", columns)


def _make_rewards() -> None:
    op.create_table(
        "reward_logs",
        _serial(),
        _number("at"),
        *_words("request_id", "model_id", "provider_id", "mode"),
        _number("estimated_tokens"),
        *_words("token_bucket"),
        _number("latency_budget_ms"),
        _number("latency_ms"),
        sa.Column("cost_nanousd", INT, nullable=True),
        sa.Column("success", sa.Boolean(), nullable=False),
        *_words("error_class"),
        sa.Column("reward", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reward_logs"),
    )
    op.create_index("ix_reward_logs_at", "reward_logs", ["at"])


def _serial() -> sa.Column[int]:
    return sa.Column("id", SERIAL, autoincrement=True, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, INT, nullable=False)


def _words(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, WORD, nullable=False) for name in names]

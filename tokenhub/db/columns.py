"""What the tables are made of: the metadata and the few kinds of column.

Times are unix milliseconds UTC in `..._at`, money is nano-dollars, prices are nano-dollars per
million tokens with NULL for unknown. Columns of text hold "" rather than NULL. Knows no table.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
)

# Named constraints, because SQLite's batch migrations can only drop what has a name.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

PRICES = ("input", "output", "cache_read", "cache_write")

AnyColumn = Column[Any]


def text(name: str, *, primary_key: bool = False) -> AnyColumn:
    return Column(name, String, primary_key=primary_key, nullable=False)


def integer(name: str, *, primary_key: bool = False, nullable: bool = False) -> AnyColumn:
    return Column(name, BigInteger, primary_key=primary_key, nullable=nullable, autoincrement=False)


def boolean(name: str) -> AnyColumn:
    return Column(name, Boolean, nullable=False)


def binary(name: str) -> AnyColumn:
    return Column(name, LargeBinary, nullable=False)


def serial(name: str) -> AnyColumn:
    # SQLite numbers rows by itself only in a column that is exactly INTEGER PRIMARY KEY.
    kind = BigInteger().with_variant(Integer, "sqlite")
    return Column(name, kind, primary_key=True, autoincrement=True)


def only_row() -> tuple[AnyColumn, CheckConstraint]:
    """A table of one row."""
    column = Column("id", Integer, primary_key=True, autoincrement=False)
    return column, CheckConstraint("id = 1", name="only_row")


def prices() -> tuple[AnyColumn, ...]:
    return tuple(integer(f"{name}_per_mtok", nullable=True) for name in PRICES)

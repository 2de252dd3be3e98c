"""The vault's rows. What is in them is encrypted by `tokenhub.vault`; here it is bytes."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from tokenhub.db.catalog_tables import vault, vault_entries
from tokenhub.domain import VaultRow
from tokenhub.store.statements import ONLY_ROW, insert_new, upsert


def find_vault(connection: Connection) -> VaultRow | None:
    """The vault; None if it was never set up."""
    query = select(vault.c.vault_id, vault.c.kdf, vault.c.salt, vault.c.wrapped_key)
    row = connection.execute(query).one_or_none()
    return None if row is None else VaultRow(*row)


def insert_vault(connection: Connection, row: VaultRow, at: int) -> bool:
    """Store the vault; False, and nothing stored, if there is one already."""
    return insert_new(
        connection,
        vault,
        id=ONLY_ROW,
        vault_id=row.id,
        salt=row.salt,
        kdf=row.kdf,
        wrapped_key=row.wrapped_key,
        created_at=at,
        generation=1,
    )


def find_entry(connection: Connection, name: str) -> bytes | None:
    """A sealed secret."""
    query = select(vault_entries.c.sealed).where(vault_entries.c.name == name)
    found: bytes | None = connection.scalar(query)
    return found


def save_entry(connection: Connection, name: str, sealed: bytes, at: int) -> None:
    """Store a sealed secret, or replace it."""
    upsert(connection, vault_entries, {"name": name}, {"sealed": sealed, "updated_at": at})


def delete_entry(connection: Connection, name: str) -> bool:
    """Delete a secret, whether or not it can be opened; False if there was none."""
    return (
        connection.execute(delete(vault_entries).where(vault_entries.c.name == name)).rowcount > 0
    )


def list_entries(connection: Connection) -> list[str]:
    """The names of all secrets, sorted."""
    return list(connection.scalars(select(vault_entries.c.name).order_by(vault_entries.c.name)))

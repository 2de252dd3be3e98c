"""The vault's rows. What is in them is encrypted by `tokenhub.vault`; here it is bytes."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from tokenhub.db.catalog_tables import vault, vault_entries
from tokenhub.domain import SECRET_PREFIX, VaultRow
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


def replace_vault(connection: Connection, before: VaultRow, after: VaultRow) -> bool:
    """Store the vault under its new password; False, and nothing stored, if it is not `before`."""
    # Sealed with a random nonce, so no two rows have the same wrapped key.
    is_before = (vault.c.vault_id == before.id) & (vault.c.wrapped_key == before.wrapped_key)
    changed = update(vault).values(
        kdf=after.kdf,
        salt=after.salt,
        wrapped_key=after.wrapped_key,
        generation=vault.c.generation + 1,
    )
    return connection.execute(changed.where(is_before)).rowcount > 0


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


def load_provider_entries(connection: Connection) -> dict[str, bytes]:
    """The sealed secrets that requests may need: all but the operators' own."""
    query = select(vault_entries.c.name, vault_entries.c.sealed)
    found = connection.execute(query.where(vault_entries.c.name.not_like(f"{SECRET_PREFIX}%")))
    return {row.name: row.sealed for row in found}


def list_entries(connection: Connection) -> list[str]:
    """The names of all secrets, sorted."""
    # Sorted here: each database has an order of its own for what is not ASCII.
    return sorted(connection.scalars(select(vault_entries.c.name)))


def list_secrets(connection: Connection, limit: int, offset: int) -> tuple[list[str], int]:
    """A page of the names of operators' own secrets, sorted, and how many there are."""
    size = len(SECRET_PREFIX)
    names = [each[size:] for each in list_entries(connection) if each.startswith(SECRET_PREFIX)]
    return names[offset : offset + limit], len(names)

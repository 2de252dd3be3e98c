"""Where the vault finds its rows: the sealed entries in the Snapshot, the vault itself in the
database, or, while that is away, in the Snapshot as well: it can be unlocked then too, and by no
password that was valid once. Opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.catalog.catalog import Catalog
from tokenhub.db import Database, DatabaseAway
from tokenhub.domain import VaultRow


class StoredVault:
    """The vault's rows, as `tokenhub.vault.VaultRows` wants them.

    Args:
        catalog: gives the catalog, which needs the vault to be made first.
    """

    def __init__(self, database: Database, catalog: Callable[[], Catalog]) -> None:
        self._database = database
        self._catalog = catalog

    def find(self) -> VaultRow | None:
        """The vault as stored; None if it was never set up.

        Raises: DatabaseAway: and it has not been seen before.
        """
        try:
            return self._database.read(store.find_vault)
        except DatabaseAway:
            seen = self._catalog().latest().vault
            if seen is None:
                raise
            return seen

    def create(self, row: VaultRow) -> bool:
        """Store the only vault; False, and nothing stored, if there is one already."""
        now = unix_ms()

        def work(connection: Connection) -> bool:
            is_stored = store.insert_vault(connection, row, now)
            if is_stored:
                store.record_change(connection, "vault", "", now)
            return is_stored

        return self._database.write(work)

    def find_entry(self, name: str) -> bytes | None:
        """A sealed entry of a provider."""
        return self._catalog().latest().sealed.get(name)

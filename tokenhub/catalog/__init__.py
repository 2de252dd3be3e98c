"""What may be routed to and by whom, and how it is changed."""

from tokenhub.catalog.catalog import (
    CHANGES_MAX,
    FAILURE_SECS,
    LOAD_SECS,
    PATIENCE_SECS,
    Catalog,
    Change,
    write_down,
)
from tokenhub.catalog.follower import Follower
from tokenhub.catalog.snapshot import Snapshot
from tokenhub.catalog.vault_rows import StoredVault

__all__ = [
    "CHANGES_MAX",
    "FAILURE_SECS",
    "LOAD_SECS",
    "PATIENCE_SECS",
    "Catalog",
    "Change",
    "Follower",
    "Snapshot",
    "StoredVault",
    "write_down",
]

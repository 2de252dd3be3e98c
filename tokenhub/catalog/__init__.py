"""What may be routed to and by whom, and how it is changed."""

from tokenhub.catalog.catalog import (
    CHANGES_MAX,
    LOAD_SECS,
    REFRESH_SECS,
    Catalog,
    Change,
    write_down,
)
from tokenhub.catalog.snapshot import Snapshot

__all__ = [
    "CHANGES_MAX",
    "LOAD_SECS",
    "REFRESH_SECS",
    "Catalog",
    "Change",
    "Snapshot",
    "write_down",
]

"""All SQL of the gateway, as functions of a Connection that `Database.read` and `write` hand out.

They neither begin nor end transactions, know no HTTP and no clock but, for leases, the database's.
"""

from __future__ import annotations

from tokenhub.store.catalog import (
    delete_model,
    delete_provider,
    find_model,
    find_provider,
    find_routing,
    list_models,
    list_providers,
    load_models,
    load_providers,
    save_model,
    save_provider,
    save_routing,
)
from tokenhub.store.changes import (
    Change,
    Loaded,
    changes_since,
    load_all,
    load_generation,
    record_change,
)
from tokenhub.store.credentials import (
    FileEntry,
    find_file_entry,
    forget_file_entry,
    list_file_entries,
    save_file_entry,
)
from tokenhub.store.hosts import beat_host, take_lease
from tokenhub.store.ingest import (
    BUCKET_SUMS,
    Batch,
    LostRace,
    forget_positions,
    ingest,
    load_openings,
    load_positions,
)
from tokenhub.store.keys import (
    KeyRow,
    delete_key,
    find_key,
    find_key_row,
    insert_key,
    list_keys,
    update_key,
)
from tokenhub.store.logs import (
    ATTEMPT_COLUMNS,
    LOG_COLUMNS,
    insert_audit,
    list_attempts,
    list_audit,
    list_logs,
)
from tokenhub.store.vault import (
    delete_entry,
    find_entry,
    find_vault,
    insert_vault,
    list_entries,
    save_entry,
)

__all__ = [
    "ATTEMPT_COLUMNS",
    "BUCKET_SUMS",
    "LOG_COLUMNS",
    "Batch",
    "Change",
    "FileEntry",
    "KeyRow",
    "Loaded",
    "LostRace",
    "beat_host",
    "changes_since",
    "delete_entry",
    "delete_key",
    "delete_model",
    "delete_provider",
    "find_entry",
    "find_file_entry",
    "find_key",
    "find_key_row",
    "find_model",
    "find_provider",
    "find_routing",
    "find_vault",
    "forget_file_entry",
    "forget_positions",
    "ingest",
    "insert_audit",
    "insert_key",
    "insert_vault",
    "list_attempts",
    "list_audit",
    "list_entries",
    "list_file_entries",
    "list_keys",
    "list_logs",
    "list_models",
    "list_providers",
    "load_all",
    "load_generation",
    "load_models",
    "load_openings",
    "load_positions",
    "load_providers",
    "record_change",
    "save_entry",
    "save_file_entry",
    "save_model",
    "save_provider",
    "save_routing",
    "take_lease",
    "update_key",
]

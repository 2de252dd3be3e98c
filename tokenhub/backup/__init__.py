"""Copy the database while it is in use, check a copy, and put it back.

Whichever database a copy was made of, it can be put into the other.
"""

from tokenhub.backup.archive import Archive, BadArchive, Manifest
from tokenhub.backup.catching_up import carry_over
from tokenhub.backup.making import back_up, back_up_before_migration, find_free_name
from tokenhub.backup.restoring import Target, open_target, verify

__all__ = [
    "Archive",
    "BadArchive",
    "Manifest",
    "Target",
    "back_up",
    "back_up_before_migration",
    "carry_over",
    "find_free_name",
    "open_target",
    "verify",
]

"""The credentials file: provider keys that an operator keeps in a file of their own.

JSON as in the original: `{"providers": [{"id": "…", "api_key": "…"}]}`, mode 0600. Read again when
it changes. Knows nothing of the vault.
"""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

log = logging.getLogger("tokenhub.credentials")


class CredentialsFile:
    """Keys by provider id.

    Args:
        path: the file; it may be absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, str] = {}

    def find_key(self, provider_id: str) -> str | None:
        """The key of a provider, or None when the file has none or is not fit to be read."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        # The time of its last change in any respect: a chmod leaves the content's time as it is.
        version = (found.st_ino, found.st_ctime_ns, found.st_size)
        if version != self._seen:
            self._seen = version
            self._keys = self._read(found.st_mode)
        return self._keys.get(provider_id)

    def _read(self, mode: int) -> dict[str, str]:
        if stat.S_IMODE(mode) & 0o077:
            log.warning("credentials file ignored: run chmod 600", extra={"path": str(self._path)})
            return {}
        try:
            listed = json.loads(self._path.read_text())["providers"]
            keys = {each["id"]: each.get("api_key") for each in listed}
            return {name: key for name, key in keys.items() if key and isinstance(key, str)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            log.warning("credentials file ignored: not valid", extra={"path": str(self._path)})
            return {}

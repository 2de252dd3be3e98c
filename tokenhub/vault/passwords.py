"""From a password to the data key: set a vault up, open it, wrap its key anew.

Whoever guesses is slowed down: wrong passwords are counted for the whole host, and past a few the
next one has to wait, before anything is derived from it.
"""

from __future__ import annotations

import logging
import secrets

from cryptography.exceptions import InvalidTag

from tokenhub.domain import VaultRow
from tokenhub.errors import InvalidRequest, RateLimited, VaultError, WrongPassword
from tokenhub.vault.ports import PasswordTries, VaultRows
from tokenhub.vault.sealing import (
    KEY_BYTES,
    PASSWORD_BYTES_MIN,
    UNREADABLE,
    Argon2Params,
    RunBlocking,
    derive,
    encode,
    new_salt,
    of_key,
    seal,
    unseal,
)

log = logging.getLogger("tokenhub.vault")


class Passwords:
    """What can be done with a password; the arguments are those of `Vault`."""

    def __init__(
        self,
        *,
        rows: VaultRows,
        tries: PasswordTries,
        run_blocking: RunBlocking,
        kdf: Argon2Params,
    ) -> None:
        self._rows = rows
        self._tries = tries
        self._run_blocking = run_blocking
        self._kdf = kdf

    def find_data_key(self, password: str, *, is_counted: bool = True) -> bytes:
        """The data key; a vault that is not set up yet is set up with this password.

        Args:
            is_counted: False: nobody typed it, so it says nothing about who may be guessing.

        Raises:
            WrongPassword, VaultError: see `Vault.unlock`.
            RateLimited: too many were wrong; nothing was derived.
        """
        secret = encode(password)
        if len(secret) < PASSWORD_BYTES_MIN:
            raise WrongPassword(
                f"the vault password has at least {PASSWORD_BYTES_MIN} bytes",
                code="password_too_short",
            )
        row = self._rows.find()
        if row is None:
            return self._create(secret)
        return self._try(row, secret) if is_counted else self._unwrap(row, secret)

    def rewrap(self, old_password: str, new_password: str) -> tuple[VaultRow, VaultRow]:
        """The vault's row as it is, and as it shall be; see `Vault.rewrap`."""
        secret = encode(new_password)
        if len(secret) < PASSWORD_BYTES_MIN:
            raise InvalidRequest(
                f"new_password must have at least {PASSWORD_BYTES_MIN} bytes",
                code="password_too_short",
                param="new_password",
            )
        row = self._rows.find()
        if row is None:
            raise InvalidRequest("the vault was never set up", code="vault_not_set_up")
        try:
            data_key = self._try(row, encode(old_password))
        except WrongPassword:
            raise WrongPassword("old password does not match") from None
        return row, self._wrap(row.id, data_key, secret)

    def _create(self, secret: bytes) -> bytes:
        """Store a new vault and return its data key, or that of whoever was faster."""
        data_key = secrets.token_bytes(KEY_BYTES)
        row = self._wrap(f"vault_{secrets.token_hex(8)}", data_key, secret)
        if self._rows.create(row):
            log.info("vault set up", extra={"vault_id": row.id})
            return data_key
        found = self._rows.find()
        if found is None:
            raise VaultError("the vault's row is gone", code=UNREADABLE)
        return self._unwrap(found, secret)

    def _wrap(self, vault_id: str, data_key: bytes, secret: bytes) -> VaultRow:
        salt = new_salt()
        wrapping_key = derive(secret, salt, self._kdf, self._run_blocking)
        wrapped_key = seal(wrapping_key, data_key, of_key(vault_id))
        return VaultRow(vault_id, self._kdf.to_json(), salt, wrapped_key)

    def _try(self, row: VaultRow, secret: bytes) -> bytes:
        # Counted before it is known to be wrong: of a thousand at once, few may be derived.
        wait_ms = self._tries.take()
        if wait_ms:
            secs = -(-wait_ms // 1000)
            raise RateLimited(
                f"too many wrong passwords: try again in {secs} s",
                code="too_many_attempts",
                headers={"Retry-After": str(secs)},
            )
        data_key = self._unwrap(row, secret)
        self._tries.clear()
        return data_key

    def _unwrap(self, row: VaultRow, secret: bytes) -> bytes:
        kdf = Argon2Params.from_json(row.kdf)
        wrapping_key = derive(secret, row.salt, kdf, self._run_blocking)
        try:
            return unseal(wrapping_key, row.wrapped_key, of_key(row.id))
        except InvalidTag:
            raise WrongPassword("the password does not open the vault") from None

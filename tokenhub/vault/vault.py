"""The vault itself: locked or open, for everybody or for traffic alone, and what it opens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest

from cryptography.exceptions import InvalidTag

from tokenhub.domain import SECRET_PREFIX, VaultRow
from tokenhub.errors import InvalidRequest, VaultError, VaultLocked, WrongPassword
from tokenhub.vault.passwords import Passwords
from tokenhub.vault.ports import KeyMemory, PasswordTries, VaultRows, VaultUse
from tokenhub.vault.sealing import Argon2Params, RunBlocking, decode, encode, of_entry, seal, unseal

log = logging.getLogger("tokenhub.vault")

_CACHED_MAX = 1024


@dataclass(frozen=True)
class AutoLock:
    """When a vault that nobody uses locks itself.

    Args:
        idle_secs: so long after an administrator's last use; 0 = never.
        stops_traffic: whether it closes for requests as well, which need the providers' keys.
    """

    idle_secs: int = 0
    stops_traffic: bool = False


class _Opened:
    """What was opened since `generation`; replaced as a whole, never emptied.

    Whoever is still waiting for the database then stores what it read into an object that nobody
    looks at any more, instead of bringing back a value that has been changed meanwhile.
    """

    __slots__ = ("generation", "values")

    def __init__(self, generation: int = -1) -> None:
        self.generation = generation
        self.values: dict[str, str] = {}

    def with_values(self, values: dict[str, str]) -> _Opened:
        """The same vault under the same data key, with these values."""
        other = _Opened(self.generation)
        other.values = values
        return other

    def keep(self, name: str, value: str) -> None:
        if len(self.values) >= _CACHED_MAX:
            del self.values[next(iter(self.values))]
        self.values[name] = value


def _run_here(work: Callable[[], bytes]) -> bytes:
    return work()


class Vault:
    """Encrypted secrets of one installation.

    Two kinds of use: administrators call `use`, `seal` and `open`, and with an automatic lock each
    of these counts; requests call `get_secret`, which does not.

    Args:
        rows: where the vault and its entries are stored.
        memory: where the data key lives while the vault is unlocked.
        last_use: when an administrator last used it.
        tries: how often a wrong password was given.
        enabled: False: the vault is never set up, never locked, and holds nothing.
        auto_lock: never, if not given.
        run_blocking: runs Argon2 (about 0.3 s, 64 MiB) off the hub and returns what it returned,
            such as the `apply` of a gevent ThreadPool of two; a plain call if not given.
        kdf: the cost for passwords that are set from now on; an old one keeps its own.
    """

    def __init__(
        self,
        *,
        rows: VaultRows,
        memory: KeyMemory,
        last_use: VaultUse,
        tries: PasswordTries,
        enabled: bool,
        auto_lock: AutoLock | None = None,
        run_blocking: RunBlocking = _run_here,
        kdf: Argon2Params | None = None,
    ) -> None:
        self._rows = rows
        self._memory = memory
        self._last_use = last_use
        self._enabled = enabled
        auto_lock = auto_lock or AutoLock()
        self._idle_ms = auto_lock.idle_secs * 1000
        self._stops_traffic = auto_lock.stops_traffic
        self._passwords = Passwords(
            rows=rows, tries=tries, run_blocking=run_blocking, kdf=kdf or Argon2Params()
        )
        self._opened = _Opened()
        self._vault_id = ""

    def is_initialized(self) -> bool:
        """Whether a password was ever set. Reads the database."""
        return self._rows.find() is not None

    @property
    def is_locked(self) -> bool:
        """Whether administrators need `unlock`. A disabled vault is not locked, as in the
        original."""
        return self._enabled and (self._memory.read() is None or self._is_left_alone())

    @property
    def locks_itself(self) -> bool:
        """Whether it is to be locked when nobody has used it for long enough."""
        return self._idle_ms > 0

    def unlock(self, password: str) -> bool:
        """Open the vault for all workers of this host; the first time, set it up.

        Returns: True if it was locked. False if it was open already, with the right password
            all the same, or is disabled.

        Raises:
            WrongPassword: not the password, or (code `password_too_short`) fewer than 8 bytes,
                also when setting up: the original's 401.
            RateLimited: too many were wrong.
            VaultError: the stored row cannot be used.
        """
        if not self._enabled:
            return False
        data_key = self._passwords.find_data_key(password)
        was_locked = self.is_locked
        # Before the key is there, and written anew if it may be about to be wiped: see
        # `lock_if_idle`.
        self._last_use.begin()
        is_safe = not was_locked and not self._stops_traffic
        if is_safe and compare_digest(self._memory.read() or b"", data_key):
            return False
        return self._memory.write(data_key) or was_locked

    def open_at_start(self, password: str) -> bool:
        """Unlock with the password from the settings; a wrong one is logged, not raised.

        Only at the host's first start: whoever has locked it since means it, also while the
        password was still being turned into the key.

        Returns: True if the vault is open now.
        """
        if self._enabled and not self._memory.generation:
            try:
                data_key = self._passwords.find_data_key(password, is_counted=False)
                self._memory.write(data_key, only_at=0)
            except WrongPassword as error:
                log.warning("vault stays locked", extra={"reason": error.code})
        return self._enabled and not self.is_locked

    def lock(self) -> bool:
        """Wipe the data key for all workers of this host; True if the vault was open."""
        was_open = self._memory.write(None)
        self._last_use.end()
        self.drop_cache()
        return was_open

    def lock_if_idle(self, write_down: Callable[[], object]) -> None:
        """Do what is due when nobody has used the vault for too long: called every second by one
        worker. That administrators are kept out does not wait for it.

        Args:
            write_down: called once for each time that it was left open. What it raises is raised,
                and the next call tries again.
        """
        generation = self._memory.generation
        last_used_at = self._last_use.find_left_open(self._idle_ms)
        if last_used_at is None:
            return
        if self._stops_traffic:
            # Not if the key was written since: then somebody has just unlocked it.
            self._memory.write(None, only_at=generation)
        write_down()
        self._last_use.note(last_used_at)
        log.info("vault locked itself", extra={"stops_traffic": self._stops_traffic})

    def rewrap(self, old_password: str, new_password: str) -> tuple[VaultRow, VaultRow]:
        """The vault's row as it is, and as it shall be under a new password. Stores nothing.

        The data key stays, so whoever has it open, here or on other hosts, notices nothing; it
        makes no difference whether the vault is locked.

        Raises:
            WrongPassword: the old password is wrong.
            InvalidRequest: disabled, never set up, or the new password has fewer than 8 bytes.
            RateLimited: too many passwords were wrong.
            VaultError: the stored row cannot be used.
        """
        if not self._enabled:
            raise InvalidRequest("the vault is switched off", code="vault_disabled")
        return self._passwords.rewrap(old_password, new_password)

    def use(self) -> None:
        """Count as a use by an administrator, who needs the vault open.

        Raises: VaultLocked: locked, by itself as well, never set up, or disabled.
        """
        if not self._enabled:
            raise VaultLocked("the vault is switched off", code="vault_disabled")
        if self._memory.read() is None or not self._last_use.touch(self._idle_ms):
            raise VaultLocked("the vault is locked")

    def seal(self, name: str, value: str) -> bytes:
        """Encrypt `value` for storing under `name`; a use by an administrator.

        Call it before the transaction that stores the result: it may read the vault's row. When
        that has been committed, `forget` the name.

        Raises: VaultLocked: see `use`.
        """
        self.use()
        _, data_key = self._get_data_key()
        return seal(data_key, encode(value), self._associated_data(name))

    def open(self, name: str, sealed: bytes) -> str:
        """What `seal` has sealed; a use by an administrator, of which nothing is kept.

        Raises:
            VaultLocked: see `use`.
            VaultError: it was not sealed by this vault under this name.
        """
        self.use()
        _, data_key = self._get_data_key()
        return self._unseal(data_key, sealed, self._associated_data(name))

    def get_secret(self, name: str) -> str | None:
        """The entry's value for a request, or None if there is no such entry.

        Reads the entry once (and the vault's row once after it was unlocked); afterwards from a
        cache that is void as soon as anybody locks or unlocks. Changes of an entry are not
        noticed: see `forget` and `drop_cache`.

        Raises:
            VaultLocked: locked, never set up, or disabled.
            VaultError: what is stored was not sealed by this vault under this name.
        """
        if self._stops_traffic and self._is_left_alone():
            raise VaultLocked("the vault is locked")
        opened = self._opened
        if opened.generation == self._memory.generation:
            value = opened.values.get(name)
            if value is not None:
                return value
        return self._open_entry(name)

    def forget(self, name: str) -> None:
        """Read this entry anew: it was changed or deleted here."""
        kept = {key: value for key, value in self._opened.values.items() if key != name}
        self._opened = self._opened.with_values(kept)

    def drop_cache(self) -> None:
        """Read every entry anew: one may have been changed by another worker or host."""
        self._opened = self._opened.with_values({})

    def _is_left_alone(self) -> bool:
        return self._last_use.is_older(self._idle_ms)

    def _open_entry(self, name: str) -> str | None:
        opened, data_key = self._get_data_key()
        associated_data = self._associated_data(name)
        sealed = self._rows.find_entry(name)
        if sealed is None:
            return None
        opened.keep(name, value := self._unseal(data_key, sealed, associated_data))
        return value

    def _unseal(self, data_key: bytes, sealed: bytes, associated_data: bytes) -> str:
        try:
            return decode(unseal(data_key, sealed, associated_data))
        except InvalidTag:
            raise VaultError("a stored secret does not open", code="secret_unreadable") from None

    def _get_data_key(self) -> tuple[_Opened, bytes]:
        # The generation first: if the key changes in between, the cache is void at once.
        generation = self._memory.generation
        data_key = self._memory.read() if self._enabled else None
        if data_key is None:
            self.drop_cache()
            raise VaultLocked("the vault is locked")
        if self._opened.generation != generation:
            self._opened = _Opened(generation)
        return self._opened, data_key

    def _associated_data(self, name: str) -> bytes:
        if not self._vault_id:  # asked for once: it never changes
            row = self._rows.find()
            if row is None:
                raise VaultLocked("the vault was never set up")
            self._vault_id = row.id
        return of_entry(self._vault_id, name)


def provider_entry(provider_id: str) -> str:
    """The name under which a provider's key is stored; the original's."""
    return f"provider:{provider_id}:api_key"


def secret_entry(name: str) -> str:
    """The name under which an operator's own secret is stored; the original's."""
    return f"{SECRET_PREFIX}{name}"

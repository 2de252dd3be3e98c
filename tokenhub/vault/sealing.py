"""The vault's cryptography: a key from a password, and bytes that only that key opens.

Sealed bytes are nonce (12) ‖ ciphertext ‖ tag (16). Associated data: `tokenhub-vault-key:<vault
id>` for the data key, `<vault id> NUL <entry name>` for an entry, so that a ciphertext put under
another name, or into another vault, does not open. Keeps nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import index

import orjson
from argon2.exceptions import HashingError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokenhub.errors import VaultError

PASSWORD_BYTES_MIN = 8
KEY_BYTES = 32
UNREADABLE = "vault_unreadable"
_SALT_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16

RunBlocking = Callable[[Callable[[], bytes]], bytes]


@dataclass(frozen=True, slots=True)
class Argon2Params:
    """Argon2id's cost; memory in KiB. The defaults are the original's."""

    time_cost: int = 3
    memory_cost_kib: int = 65536
    parallelism: int = 4

    def to_json(self) -> str:
        named = {"name": "argon2id", "version": ARGON2_VERSION, **asdict(self)}
        return orjson.dumps(named).decode()

    @classmethod
    def from_json(cls, text: str) -> Argon2Params:
        """Raises: VaultError: not what `to_json` writes, or so costly that it would harm us."""
        try:
            found = orjson.loads(text)
            params = cls(**{name: index(found[name]) for name in cls.__slots__})
            known = (found["name"], found["version"]) == ("argon2id", ARGON2_VERSION)
        except (ValueError, KeyError, TypeError):
            known = False
        if not known or not params._is_bearable:
            raise VaultError("the vault's parameters are damaged", code=UNREADABLE)
        return params

    @property
    def _is_bearable(self) -> bool:
        return (
            1 <= self.time_cost <= 64
            and 8 <= self.memory_cost_kib <= 4 * 1024**2
            and 1 <= self.parallelism <= 64
        )


def new_salt() -> bytes:
    """Random, for one derivation."""
    return secrets.token_bytes(_SALT_BYTES)


def derive(secret: bytes, salt: bytes, kdf: Argon2Params, run_blocking: RunBlocking) -> bytes:
    """The wrapping key of a password.

    Raises: VaultError: no memory, or a combination of parameters that Argon2 does not allow.
    """

    def argon2id() -> bytes:
        return hash_secret_raw(
            secret,
            salt,
            time_cost=kdf.time_cost,
            memory_cost=kdf.memory_cost_kib,
            parallelism=kdf.parallelism,
            hash_len=KEY_BYTES,
            type=Type.ID,
        )

    try:
        return run_blocking(argon2id)
    except HashingError as error:
        raise VaultError("the vault's key cannot be derived", code=UNREADABLE) from error


def encode(text: str) -> bytes:
    """As UTF-8; lone surrogates as well: an encoding error would carry the secret in its fields."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """The inverse of `encode`."""
    return data.decode("utf-8", "surrogatepass")


def of_key(vault_id: str) -> bytes:
    """What the wrapped data key is bound to."""
    return b"tokenhub-vault-key:" + vault_id.encode()


def of_entry(vault_id: str, name: str) -> bytes:
    """What an entry is bound to."""
    return encode(f"{vault_id}\0{name}")


def seal(key: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """Encrypt; never the same bytes twice."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, associated_data)


def unseal(key: bytes, sealed: bytes, associated_data: bytes) -> bytes:
    """Raises: InvalidTag: other key, other associated data, or not the bytes that were sealed."""
    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated_data)

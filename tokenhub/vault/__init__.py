"""Keep provider keys and other secrets encrypted, and open them while the vault is unlocked.

Argon2id turns the password into a key that wraps a random data key; the data key seals the entries
(AES-256-GCM throughout). Unwrapping authenticates, so a wrong password is noticed and changes
nothing. The data key lives in memory shared by the workers of the host; the password nowhere.
Knows no SQL and no shared memory: what is needed of them is in `ports`.
"""

from tokenhub.vault.ports import KeyMemory, PasswordTries, VaultRows, VaultUse
from tokenhub.vault.sealing import PASSWORD_BYTES_MIN, Argon2Params
from tokenhub.vault.vault import AutoLock, Vault, provider_entry, secret_entry

__all__ = [
    "PASSWORD_BYTES_MIN",
    "Argon2Params",
    "AutoLock",
    "KeyMemory",
    "PasswordTries",
    "Vault",
    "VaultRows",
    "VaultUse",
    "provider_entry",
    "secret_entry",
]

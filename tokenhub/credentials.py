"""The credentials file: providers, models and keys that an operator keeps in a file of their own.

JSON in the original's fields (reference/operations.md §16.3), readable for its owner alone. It is
good as a whole or not at all: while it is bad, what was read last stays. Keys are handed out from
here and are kept nowhere else. Knows neither database nor vault, and leaves it to `Rules` what the
fields may hold.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from tokenhub.domain import Provider
from tokenhub.errors import ConfigError, InvalidRequest, VaultError

FILE_BYTES_MAX = 4 << 20
NAME_CHARS = 100
"""How much of an unknown field's name is repeated."""

GONE_SECS = 2.0
"""How long a file must be missing to be gone: editors take it away before they put the new one."""

PROVIDER_TYPE = "openai"
"""The type of a provider that names none, as in the original."""

Reader = Callable[[str, Any], Any]
"""Takes a field's name and its JSON value; returns it as we keep it, or raises InvalidRequest."""

log = logging.getLogger("tokenhub.credentials")


@dataclass(frozen=True)
class Rules:
    """The fields that an entry may have, each with what reads it: the admin API's readers.

    Args:
        providers: with `id`, `base_url`, `api_key` and `autoload_models` among them.
        models: with `id` and `provider_id` among them.
        check_provider: raises InvalidRequest when a provider as a whole makes no sense.
    """

    providers: Mapping[str, Reader]
    models: Mapping[str, Reader]
    check_provider: Callable[[Provider], None]


@dataclass(frozen=True)
class Entry:
    """A provider or a model as the file has it.

    Args:
        values: the other fields that are given, as we keep them.
    """

    id: str
    values: Mapping[str, Any]
    api_key: str = field(default="", repr=False)
    autoload_models: bool = False


@dataclass(frozen=True)
class Contents:
    """A good file, by id; empty when there is none.

    Args:
        is_there: whether there is one. One that is not says nothing about anything.
    """

    providers: Mapping[str, Entry] = field(default_factory=dict)
    models: Mapping[str, Entry] = field(default_factory=dict)
    is_there: bool = True


class KeyMissing(VaultError):
    """A provider's key is said to be in the file, and this worker has not found it there."""

    status = 503
    code = "key_missing"


class BadFile(Exception):
    """The file cannot be used: everything that is wrong with it, without what is secret in it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Credentials:
    """The file as it was when it was last good; looked at again whenever it is asked for.

    Args:
        path: the file; it may be absent.
    """

    def __init__(self, path: Path, rules: Rules) -> None:
        self.path = path
        self.rules = rules
        self._seen: tuple[int, ...] | None = (0,)  # unlike any version
        self._contents: Contents | None = None
        self._missing_since: float | None = None

    def contents(self) -> Contents | None:
        """What the file says, the same object as long as nothing changes; None while it is bad and
        has not been good since we began."""
        version = find_version(self.path)
        if version is not None:
            self._missing_since = None
        if version != self._seen and not (version is None and self._may_come_back()):
            self._seen = version
            self._read()
        return self._contents

    def read_again(self) -> None:
        """Read it although it may look as it did, and say again what is wrong with it."""
        self._seen = (0,)
        self.contents()

    def get_key(self, provider_id: str) -> str:
        """The key of a provider.

        Raises:
            KeyMissing: the file has none, or has not been good since we began.
        """
        contents = self.contents()
        entry = contents.providers.get(provider_id) if contents else None
        if entry is None or not entry.api_key:
            raise KeyMissing("the credentials file has no key of this provider")
        return entry.api_key

    def _read(self) -> None:
        try:
            found = read(self.path, self.rules)
        except BadFile as error:
            log.error(
                "credentials file ignored", extra={"path": str(self.path), "reason": str(error)}
            )
            return
        if self._contents and self._contents.is_there and not found.is_there:
            log.warning("credentials file is gone", extra={"path": str(self.path)})
        self._contents = found

    def _may_come_back(self) -> bool:
        """Whether a file that was there is missing for so short a time that it may be replaced."""
        if self._contents is None:
            return False
        if self._missing_since is None:
            self._missing_since = monotonic()
        return monotonic() - self._missing_since < GONE_SECS


def check(path: Path, rules: Rules) -> None:
    """Make sure that a gateway may start with this file; with none it may.

    Raises:
        ConfigError: everything that is wrong, and how to mend it.
    """
    try:
        read(path, rules)
    except BadFile as error:
        raise ConfigError(f"the credentials file {path}: {error}") from error


def read(path: Path, rules: Rules) -> Contents:
    """Read the file; empty when there is none.

    Raises:
        BadFile: it is not safe, or not sound.
    """
    try:
        data = _read_safely(path)
    except FileNotFoundError:
        return Contents(is_there=False)
    except OSError as error:
        raise BadFile(f"it cannot be read: {error.strerror}") from error
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise BadFile(f"it is not JSON: see {place}") from None  # the cause holds the keys
    _refuse_duplicates(data)
    return _parse(parsed, rules)


def find_version(path: Path) -> tuple[int, ...] | None:
    """What changes when the file does; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    # The time of its last change in any respect: a chmod leaves the content's time as it is.
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _read_safely(path: Path) -> bytes:
    """The content, if nobody else may read or replace it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would keep us waiting
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadFile("it is not a regular file")
        problems = []
        if stat.S_IMODE(found.st_mode) & 0o077:
            problems.append(f"others may read or write it: run chmod 600 {path}")
        if found.st_uid != os.geteuid():
            problems.append(f"it belongs to another user: run chown {os.geteuid()} {path}")
        if found.st_size > FILE_BYTES_MAX:
            problems.append(f"it is larger than {FILE_BYTES_MAX >> 20} MiB")
        if problems:
            raise BadFile(*problems)
        return file.read(FILE_BYTES_MAX)


def _refuse_duplicates(data: bytes) -> None:
    """Of a field that is there twice the parser would take the last, in silence."""

    def build(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise BadFile(f"the field {name[:NAME_CHARS]!r} is there twice in one object")
            seen.add(name)

    try:
        json.loads(data, object_pairs_hook=build)
    except RecursionError:
        raise BadFile("it is nested too deeply") from None


def _parse(parsed: Any, rules: Rules) -> Contents:
    if not isinstance(parsed, dict):
        raise BadFile("it must hold a JSON object")
    problems = [
        f"unknown field {name[:NAME_CHARS]!r}; known are: providers, models"
        for name in parsed
        if name not in ("providers", "models")
    ]
    providers = _entries("providers", parsed, rules.providers, problems)
    models = _entries("models", parsed, rules.models, problems)
    if not problems:
        problems += filter(None, (_fault(each, rules) for each in providers.values()))
    if problems:
        raise BadFile(*problems)
    return Contents(providers, models)


def _entries(
    kind: str, parsed: Mapping[str, Any], readers: Mapping[str, Reader], problems: list[str]
) -> dict[str, Entry]:
    """The entries of one list; what is wrong with them is added to `problems`."""
    listed = parsed.get(kind, [])
    if not isinstance(listed, list):
        problems.append(f"{kind} must be a list")
        return {}
    found: dict[str, Entry] = {}
    for index, raw in enumerate(listed):
        values: dict[str, Any] = {}
        place = f"{kind}[{index}]"
        problems += [f"{place}: {each}" for each in _read_entry(kind, raw, readers, values)]
        name = values.pop("id", "")
        if name and name in found:
            problems.append(f"{place}: the id {name!r} is there twice")
        api_key, autoload = values.pop("api_key", ""), values.pop("autoload_models", False)
        found[name] = Entry(name, values, api_key, autoload)
    return found


def _fault(entry: Entry, rules: Rules) -> str | None:
    provider = Provider(entry.id, PROVIDER_TYPE, "")
    try:
        rules.check_provider(replace(provider, **entry.values))
    except InvalidRequest as error:
        return f"provider {entry.id}: {error.message}"
    return None


def _read_entry(
    kind: str, raw: Any, readers: Mapping[str, Reader], values: dict[str, Any]
) -> list[str]:
    """Fill `values` from one entry; returns what is wrong with it."""
    if not isinstance(raw, dict):
        return ["must be an object"]
    problems = []
    for name, value in raw.items():
        if name not in readers:
            known = ", ".join(readers)
            problems.append(f"unknown field {name[:NAME_CHARS]!r}; known are: {known}")
            continue
        try:
            values[name] = readers[name](name, value)
        except InvalidRequest as error:
            problems.append(error.message)
    required = ("id", "base_url" if kind == "providers" else "provider_id")
    problems += [f"{name} is required" for name in required if raw.get(name) in (None, "")]
    return problems

"""The file that a backup is: a zip of JSON lines, one member for each table, and a manifest.

A row is a JSON array in the order of the manifest's columns; bytes are `{"b64": "…"}`. So it can be
read without this program, and fits into either database. Knows neither of them.
"""

from __future__ import annotations

import base64
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from tokenhub.errors import ConfigError

FORMAT = 1
MANIFEST = "manifest.json"
LINES_AT_ONCE = 1000

# What Python's reader of zip files raises when bytes of one are not what they were.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, ValueError, RuntimeError,
    TypeError, OverflowError, AttributeError,
)  # fmt: skip

Row = Sequence[Any]


class BadArchive(ConfigError):
    """The file is no backup, or not a whole one."""


@dataclass(frozen=True)
class Table:
    """One table of a backup.

    Args:
        sha256: of its lines, in hexadecimal.
    """

    name: str
    columns: tuple[str, ...]
    rows: int
    sha256: str

    @property
    def member(self) -> str:
        return f"tables/{self.name}.jsonl"


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself.

    Args:
        version: of the program that made it.
        schema: the migration that the database was at.
        dialect: `sqlite` or `postgresql`.
        created_at: unix milliseconds; the moment that it shows is a little later.
        tables: parents before children.
    """

    version: str
    schema: str
    dialect: str
    created_at: int
    tables: tuple[Table, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


class Writer:
    """Writes an archive, from the beginning of a file; the manifest comes last."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._tables: list[Table] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def add(self, name: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write one table."""
        digest, count, waiting = sha256(), 0, []
        member = Table(name, (), 0, "").member
        with self._zip.open(member, "w", force_zip64=True) as file:
            for row in rows:
                waiting.append(orjson.dumps(tuple(row), _plain, orjson.OPT_APPEND_NEWLINE))
                count += 1
                if len(waiting) == LINES_AT_ONCE:
                    _write(file, digest, waiting)
            _write(file, digest, waiting)
        self._tables.append(Table(name, tuple(columns), count, digest.hexdigest()))

    def finish(self, *, version: str, schema: str, dialect: str, created_at: int) -> Manifest:
        """Write the manifest; without it the file is no backup."""
        manifest = Manifest(version, schema, dialect, created_at, tuple(self._tables))
        with self._zip.open(MANIFEST, "w") as file:
            file.write(orjson.dumps({"format": FORMAT, **asdict(manifest)}, None,
                                    orjson.OPT_INDENT_2))  # fmt: skip
        return manifest


class Archive:
    """A backup that is read.

    Raises:
        BadArchive: it cannot be opened as one.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _or_bad(path), zipfile.ZipFile(path) as found:
            self.manifest = _manifest_from(orjson.loads(found.read(MANIFEST)))

    def rows(self, table: Table) -> Iterator[Row]:
        """The rows of a table.

        Raises:
            BadArchive: while they are read, or at their end: they are not those that were written.
        """
        digest, count = sha256(), 0
        with (
            _or_bad(self.path),
            zipfile.ZipFile(self.path) as found,
            found.open(table.member) as lines,
        ):
            for line in lines:
                digest.update(line)
                count += 1
                row = orjson.loads(line)
                yield list(map(_restored, row)) if b'"b64"' in line else row
        if (count, digest.hexdigest()) != (table.rows, table.sha256):
            raise BadArchive(f"{self.path} is damaged: the rows of {table.name} are not all there")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A 0600 file that has its name only when it is whole and on the disk.

    Raises:
        ConfigError: there is one of that name.
    """
    if path.exists():
        raise ConfigError(f"{path} exists already")
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        sync_directory(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Force to disk which files there are: a file's own sync need not do that."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(file: Any, digest: Any, waiting: list[bytes]) -> None:
    data = b"".join(waiting)
    digest.update(data)
    file.write(data)
    waiting.clear()


def _plain(value: object) -> dict[str, str]:
    """JSON knows no bytes."""
    if isinstance(value, bytes | memoryview):
        return {"b64": base64.b64encode(value).decode()}
    raise TypeError(f"a column holds {type(value).__name__}")


def _restored(value: Any) -> Any:
    return base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value


@contextmanager
def _or_bad(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise BadArchive(f"{path} is damaged, or no backup: {error}") from error


def _manifest_from(found: Any) -> Manifest:
    if found["format"] != FORMAT:
        raise ValueError("another version of TokenHub has made it, in a format of its own")
    tables = tuple(
        Table(str(each["name"]), tuple(map(str, each["columns"])), int(each["rows"]),
              str(each["sha256"]))
        for each in found["tables"]
    )  # fmt: skip
    return Manifest(
        version=str(found["version"]),
        schema=str(found["schema"]),
        dialect=str(found["dialect"]),
        created_at=int(found["created_at"]),
        tables=tables,
    )

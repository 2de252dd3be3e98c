"""Where a setting's text comes from: the environment, a file that a variable names, the env file.

Knows the names of variables but not what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenhub.config import values

PREFIX = "TOKENHUB_"
DATA_DIR = "~/.tokenhub/data"
"""The data directory's default; the env file is looked for there."""


def value_of(environ: Mapping[str, str], variable: str) -> str:
    # TOKENHUB_ENV_FILE and TOKENHUB_CREDENTIALS_FILE are settings of their own.
    given, file = environ.get(variable, "").strip(), environ.get(f"{variable}_FILE", "").strip()
    return given or (values.path(file).read_text().strip() if file else "")


def with_env_file(
    environ: Mapping[str, str], problems: list[str], *, known: frozenset[str]
) -> Mapping[str, str]:
    """The environment with the lines of the env file in it; a file that was named must exist."""
    named = ""
    try:
        named = value_of(environ, "TOKENHUB_ENV_FILE")
        data_dir = value_of(environ, "TOKENHUB_DATA_DIR") or DATA_DIR
        path = values.path(named) if named else values.path(data_dir) / "settings.env"
        lines = path.read_text().splitlines()
    except FileNotFoundError as error:
        if named:
            problems.append(f"TOKENHUB_ENV_FILE: {error.strerror}: {error.filename!r}")
        return environ
    except (OSError, ValueError) as error:
        problems.append(f"the env file cannot be read: {error}")
        return environ
    pairs = _pairs(path, lines, problems)
    # X or X_FILE in the file wins over both in the environment.
    beaten = {_setting_of(key, known) for key in pairs}
    kept = {key: value for key, value in environ.items() if _setting_of(key, known) not in beaten}
    return {**kept, **pairs}


def _setting_of(key: str, known: frozenset[str]) -> str:
    """The variable that X or X_FILE gives."""
    return key if key in known else key.removesuffix("_FILE")


def _pairs(path: Path, lines: list[str], problems: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, found, value = line.strip().partition("=")
        if not key or key.startswith("#"):
            continue
        if not found or not key.startswith(PREFIX):
            problems.append(f"{path}:{number}: not a TOKENHUB_…=VALUE line")
            continue
        pairs[key.strip()] = _unquoted(value.strip())
    return pairs


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value

"""Where the gateway is, and who asks.

A variable of the environment comes first, then `~/.tokenhub/env`, then the `env` that `make run`
leaves in the data directory. Reads only what it is given: the caller passes the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tokenhub.config import environment
from tokenhub.errors import ConfigError

URL_DEFAULT = "http://127.0.0.1:8080"
TOKEN_FILE = ".admin-token"  # noqa: S105 - a file name
ENV_FILE = "env"
THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Config:
    """What a command needs to know.

    Attributes:
        url: without a slash at the end.
        admin_token, api_key: "" if there is none.
        token_from: where the admin token was found, for people.
        home_env: `~/.tokenhub/env`, whether or not it is there.
        data_dir: where `make run` keeps its files.
    """

    url: str
    admin_token: str
    api_key: str
    token_from: str
    home_env: Path
    data_dir: Path

    @property
    def is_local(self) -> bool:
        """Whether the gateway is on this machine."""
        return is_local(self.url)


def find_config(environ: Mapping[str, str], *, url: str = "", token_file: str = "") -> Config:
    """What holds for this call.

    The data directory's token is sent to this machine only: it is worth nothing elsewhere, and
    whoever runs another gateway need not have it.

    Args:
        environ: the environment.
        url, token_file: what the command line says; "" = nothing.

    Raises:
        ConfigError: the URL is none, or a file that was named cannot be read.
    """
    home = Path(environ.get("HOME") or "~").expanduser() / ".tokenhub"
    named = environ.get("TOKENHUB_DATA_DIR") or environment.DATA_DIR
    data_dir = _expand(named, home.parent)
    at_home, in_data = read_env(home / ENV_FILE), read_env(data_dir / ENV_FILE)
    given = {name: value for name, value in environ.items() if value}
    chosen = url or given.get("TOKENHUB_URL") or at_home.get("TOKENHUB_URL")
    address = check_url(chosen or in_data.get("TOKENHUB_URL") or URL_DEFAULT)
    local = in_data if is_local(address) else {}
    sources = (("the environment", given), (str(home / ENV_FILE), at_home))
    token, origin = _find("TOKENHUB_ADMIN_TOKEN", (*sources, (str(data_dir / ENV_FILE), local)))
    if token_file:
        token, origin = _read_named(Path(token_file)), token_file
    if not token and is_local(address):
        token, origin = _find_token_file((data_dir / TOKEN_FILE, home / TOKEN_FILE))
    api_key, _ = _find("TOKENHUB_API_KEY", (*sources, ("", local)))
    return Config(address, token, api_key, origin, home / ENV_FILE, data_dir)


def read_env(path: Path) -> dict[str, str]:
    """The KEY=VALUE lines of a file, without quoting; `#` begins a comment line. {} if none."""
    found: dict[str, str] = {}
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and name and not name.startswith("#"):
                found[name.strip()] = value.strip()
    return {name: value for name, value in found.items() if value}


def check_url(url: str) -> str:
    """The URL without slashes at its end.

    Raises:
        ConfigError: it is not of a web server, or has a password in it, which would be shown.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError("TOKENHUB_URL is not a URL such as http://127.0.0.1:8080") from None
    if "@" in parts.netloc:
        raise ConfigError("TOKENHUB_URL must not hold a name or password; use TOKENHUB_ADMIN_TOKEN")
    if not is_good or parts.query or parts.fragment or not url.isprintable():
        raise ConfigError("TOKENHUB_URL is not a URL such as http://127.0.0.1:8080")
    return url.rstrip("/")


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine."""
    return urlsplit(url).hostname in THIS_MACHINE


def _find(name: str, sources: tuple[tuple[str, Mapping[str, str]], ...]) -> tuple[str, str]:
    for origin, values in sources:
        if values.get(name):
            return values[name], origin
    return "", ""


def _find_token_file(paths: tuple[Path, ...]) -> tuple[str, str]:
    for path in paths:
        with suppress(OSError, UnicodeDecodeError):
            token = path.read_text().strip()
            if token:
                return token, str(path)
    return "", ""


def _read_named(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}") from None


def _expand(path: str, home: Path) -> Path:
    return home / path[2:] if path.startswith("~/") else Path(path)

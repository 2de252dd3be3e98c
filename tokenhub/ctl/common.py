"""What commands share: how they answer, `--json`, `--watch`, and where secrets come from."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tokenhub.ctl.client import Client, Failed
from tokenhub.ctl.config import Config, find_config
from tokenhub.ctl.show import as_json, clean_lines
from tokenhub.errors import ConfigError

WIDE = 10_000
"""Of what is not shown on a terminal no line is broken."""
WATCH_SECS = 2.0
CLEAR = "\x1b[H\x1b[2J"
CLIENT = "tokenhub.ctl.client"


class Answer:
    """What a command has to say.

    Args:
        payload: what the gateway said, for `--json`.
        parts: the same for people; none: the JSON is what they get as well.
    """

    def __init__(self, payload: Any, *parts: str | Table) -> None:
        self.payload = payload
        self.parts = parts


SAID = Answer(None)
"""Of a command that has written all that it has to say, as it came."""


@dataclass
class Session:
    """One call of the command line, as click hands it on."""

    environ: Mapping[str, str]
    url: str = ""
    token_file: str = ""

    def config(self) -> Config:
        """Raises: click.ClickException: it makes no sense."""
        try:
            return find_config(self.environ, url=self.url, token_file=self.token_file)
        except ConfigError as error:
            raise click.ClickException(str(error)) from None

    def client(self) -> Client:
        """Calls to the gateway."""
        return Client(self.config())


def client() -> Client:
    """The client of the command that is running: one, however often it looks."""
    at = click.get_current_context()
    found = at.meta.get(CLIENT)
    if not isinstance(found, Client):
        found = at.meta[CLIENT] = session().client()
        at.find_root().call_on_close(found.close)
    return found


def session() -> Session:
    """The command line that is running."""
    found = click.get_current_context().find_object(Session)
    return found or Session({})


class Nouns(click.Group):
    """A group whose commands have other names as well, and perhaps one for when none is named."""

    def __init__(self, *args: Any, default: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default
        self.no_args_is_help = not default
        self.other_names: dict[str, str] = {}

    def also(self, command: click.Command, *names: str) -> None:
        """Add a command, and other names for it."""
        self.add_command(command)
        self.other_names |= dict.fromkeys(names, command.name or "")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after the default was put in."""
        is_option = bool(args) and args[0].startswith("-") and args[0] not in ("-h", "--help")
        if self.default and (not args or is_option):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """By any of its names."""
        return super().get_command(ctx, self.other_names.get(cmd_name, cmd_name))


def answering(function: Callable[..., Answer]) -> Callable[..., None]:
    """Show what a command's function returns, or its JSON; put it right under `command()`."""

    @click.option("--json", "is_json", is_flag=True, help="The answer as JSON, as it came.")
    @wraps(function)
    def run(*args: Any, is_json: bool, **kwargs: Any) -> None:
        tell(function(*args, **kwargs), is_json=is_json)

    return run


def watching(function: Callable[..., Answer]) -> Callable[..., None]:
    """As `answering`, for what can be looked at again and again."""

    @click.option("--json", "is_json", is_flag=True, help="The answer as JSON, as it came.")
    @click.option(
        "--watch", type=click.FloatRange(min=0.2), is_flag=False, flag_value=WATCH_SECS,
        metavar="[SECS]", help="Again every so many seconds (2), until Ctrl-C.",
    )  # fmt: skip
    @wraps(function)
    def run(*args: Any, is_json: bool, watch: float | None, **kwargs: Any) -> None:
        if watch is None:
            tell(function(*args, **kwargs), is_json=is_json)
            return
        was_answered = False
        while True:
            try:
                answer = function(*args, **kwargs)
            except Failed as error:  # of a gateway that is starting again it is no end
                if not was_answered or not error.is_passing:
                    raise
                click.echo(error.format_message(), err=True)
            else:
                was_answered = True
                _clear()
                tell(answer, is_json=is_json)
            sys.stdout.flush()
            time.sleep(watch)

    return run


def _clear() -> None:
    if sys.stdout.isatty():
        click.echo(CLEAR, nl=False)


def tell(answer: Answer, *, is_json: bool) -> None:
    """Print an answer."""
    if answer is SAID:
        return
    if is_json or not answer.parts:
        # What is no JSON is shown as it came, as in the original.
        payload = answer.payload
        click.echo(clean_lines(payload) if isinstance(payload, str) else as_json(payload))
        return
    for part in answer.parts:
        if isinstance(part, str):
            click.echo(part)
        else:
            _print(part)


def _print(part: Table) -> None:
    """Print a table: folded into a terminal's width, else a row a line without padding."""
    console = Console(
        width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False, emoji=False
    )
    with console.capture() as shown:
        console.print(part)
    for line in shown.get().splitlines():
        click.echo(line.rstrip())


def read_json(text: str | None) -> Any:
    """A JSON object of the command line, or of standard input when it is left out or `-`.

    Raises:
        click.UsageError: it is none.
    """
    if text is None or text == "-":
        if text is None and sys.stdin.isatty():
            raise click.UsageError("JSON is needed: as an argument, or on standard input")
        text = sys.stdin.read()
    try:
        found = json.loads(text)
    except ValueError as error:  # what is at that place may be a secret
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise click.UsageError(f"that is no JSON{where}") from None
    if not isinstance(found, dict):
        raise click.UsageError("a JSON object is needed: {…}")
    return found


def read_secret(given: str | None, prompt: str, *, whole: bool = False) -> str:
    """A secret of the command line, or asked for, or the next line of standard input.

    Args:
        prompt: what is asked for.
        whole: all of standard input belongs to it, not a line.
    """
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True, err=True))
    found = sys.stdin.read() if whole else sys.stdin.readline()
    found = found.removesuffix("\n")
    if not found:
        raise click.UsageError(f"{prompt.lower()} is needed: on standard input, or when asked")
    return found


def confirm(what: str, *, yes: bool) -> None:
    """Ask a person; scripts, which have no terminal, are taken at their word."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"{what}?", abort=True, err=True)


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")

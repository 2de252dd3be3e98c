"""The tree of commands, and how a call of it ends: 0 done, 1 not, 130 broken off by Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import click
from click.shell_completion import get_completion_class

from tokenhub import __version__
from tokenhub.ctl import (
    admins,
    breakers,
    catalog,
    doctor,
    events,
    keys,
    money,
    reads,
    server,
    sums,
    trial,
    vault,
)
from tokenhub.ctl.common import Answer, Nouns, Session, answering
from tokenhub.ctl.manual import render_manual
from tokenhub.ctl.show import clean_lines

NAME = "tokenhubctl"
COMPLETE_VARIABLE = "_TOKENHUBCTL_COMPLETE"

EPILOG = """\b
It asks the gateway at TOKENHUB_URL (http://127.0.0.1:8080) with the token
TOKENHUB_ADMIN_TOKEN, and models with TOKENHUB_API_KEY. They come from the
environment, else from ~/.tokenhub/env, else from what `make run` has left in
its data directory.

\b
Exit status: 0 done; 1 not: a wrong call, no answer, or an error; 130 Ctrl-C.
"""


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, "-v", "--version", prog_name=NAME)
@click.option("--url", default="", metavar="URL", help="The gateway, in the place of TOKENHUB_URL.")
@click.option(
    "--token-file", default="", type=click.Path(), help="A file that holds the admin token."
)
@click.pass_context
def main(ctx: click.Context, url: str, token_file: str) -> None:
    """Operate a TokenHub gateway: what it serves, to whom, and how it is going."""
    found = ctx.ensure_object(Session) if isinstance(ctx.obj, Session) else Session({})
    ctx.obj = Session(found.environ, url, token_file)


@click.command("help")
@click.argument("words", nargs=-1)
@click.pass_context
def show_help(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show this help, or that of a command."""
    found: click.Command = main
    at = click.Context(main, info_name=NAME)
    for word in words:
        inner = found.get_command(at, word) if isinstance(found, click.Group) else None
        if inner is None:
            raise click.UsageError(f"no such command: {word!r}")
        found, at = inner, click.Context(inner, info_name=word, parent=at)
    click.echo(found.get_help(at))


@click.command()
@answering
def version() -> Answer:
    """Print the version of this command; `status` has the gateway's."""
    return Answer({"version": __version__}, f"{NAME} {__version__}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands: `source <(tokenhubctl completion bash)`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is not known")
    click.echo(kind(main, {}, NAME, COMPLETE_VARIABLE).source())


@click.command(hidden=True)
def manual() -> None:
    """Print docs/tokenhubctl.md."""
    click.echo(render_manual(main), nl=False)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the command line says; returns the exit status."""
    try:
        status = main.main(
            list(arguments), prog_name=NAME, complete_var=COMPLETE_VARIABLE,
            standalone_mode=False, obj=Session(environ),
        )  # fmt: skip
    except click.UsageError as error:
        _complain(f"{error.format_message()}\n{_usage(error)}")
    except click.Abort:  # Ctrl-C, or no answer to a question
        sys.stderr.write("\n")
        return 130
    except click.ClickException as error:
        _complain(error.format_message())
    except BrokenPipeError:  # `… | head`; nothing more may be written when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _complain(error.strerror or type(error).__name__)
    else:
        return status if isinstance(status, int) else 0  # an int is what Exit was raised with
    return 1


def _complain(text: str) -> None:
    sys.stderr.write(f"{NAME}: {clean_lines(text)}\n")


def _usage(error: click.UsageError) -> str:
    if error.ctx is None:
        return f"`{NAME} help` shows all commands."
    return f"{error.ctx.get_usage()}\n`{error.ctx.command_path} --help` says more."


for _module in (
    server, breakers, admins, vault, catalog, keys, money, reads, sums, events, trial, doctor,
):  # fmt: skip
    for _command, _names in _module.COMMANDS:
        main.also(_command, *_names)
for _command in (show_help, version, completion, manual):
    main.add_command(_command)

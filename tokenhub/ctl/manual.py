"""The reference page of every command, out of the click tree itself: `docs/tokenhubctl.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click

HEAD = """# tokenhubctl

The command line for those who operate a gateway, from this machine or another. It speaks the
[admin API](api.md) and nothing else. Run it as `./tokenhubctl` from a checkout, link that file
into a directory of `PATH`, or run `python -m tokenhub.ctl`.

```sh
./tokenhubctl status
./tokenhubctl logs --outcome failed --limit 20
./tokenhubctl doctor
source <(tokenhubctl completion bash)   # and zsh; fish: tokenhubctl completion fish | source
```

## Where it asks, and as whom

| variable | meaning |
|---|---|
| `TOKENHUB_URL` | the gateway; `http://127.0.0.1:8080` if nothing says otherwise |
| `TOKENHUB_ADMIN_TOKEN` | the admin token |
| `TOKENHUB_API_KEY` | the API key of `model-test` and of `doctor`'s stream |

Each comes from the environment, or else from `~/.tokenhub/env` (`KEY=VALUE` lines, `#` begins a
comment), or else from what `make run` has left in the data directory: that only for a gateway on
this machine. `--url` and `--token-file` before the command come first of all.

Secrets may be arguments, as in the original, but other users of the machine can see those. Left
out they are asked for, or read from standard input: passwords a line each, JSON and the value of
a secret as a whole. `-` reads standard input too. What is deleted is asked about on a terminal,
unless there is `--yes`.

`--if-match 7` changes a thing only if 7 is still the `revision` that `--json` shows of it; else
somebody was faster, nothing is changed, and the error says which one it is now. `delete --dry-run`
removes nothing and lists [who depends on the thing](api.md#changing-things-safely).

## What it prints

Tables and lines; `--json` is the gateway's answer as it came. `--watch` shows it again and again.
Times are local. `-` is unknown or nothing; a cost of 0 is `free`. What is not printable in any
text is shown as `\\x1b`: names cannot play tricks on a terminal.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | not done, and standard error says why: a wrong call, no answer, an error, a failed check |
| 130 | broken off by Ctrl-C, or a question that was not answered with yes |

## Commands
"""


def render_manual(main: click.Group) -> str:
    """The whole page."""
    return HEAD + "".join(_sections(main, click.Context(main, info_name="tokenhubctl")))


def _sections(group: click.Group, at: click.Context) -> Iterator[str]:
    for name in group.list_commands(at):
        command = group.get_command(at, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=at)
        if isinstance(command, click.Group):
            yield from _sections(command, inner)
        else:
            yield _section(command, inner)


def _section(command: click.Command, at: click.Context) -> str:
    usage = command.get_usage(at).removeprefix("Usage: ")
    words = " ".join(usage.split()).replace(" [OPTIONS]", "")
    text = " ".join((command.help or "").split())
    lines = [f"\n### `{words}`\n\n{text}\n"]
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        lines.append("\n")
    for option in options:
        record = option.get_help_record(at)
        if record is not None:
            lines.append(f"- `{record[0]}`{': ' + record[1] if record[1] else ''}\n")
    return "".join(lines)

"""The command that examines a gateway from outside, as its clients and operators meet it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click
import requests

from tokenhub import __version__
from tokenhub.config.findings import Finding, has_failed, render_findings
from tokenhub.ctl import symptoms, wires
from tokenhub.ctl.client import OURS, Client, Failed, parse, proxy_of, remedy_of
from tokenhub.ctl.common import client
from tokenhub.ctl.config import Config
from tokenhub.ctl.show import clean

TIMEOUT_SECS = 10.0
OTHERS = 0o077


@click.command("doctor")
@click.option("--json", "is_json", is_flag=True, help="The findings as JSON.")
@click.option("--no-stream", is_flag=True, help="Send no request to a model.")
def doctor(is_json: bool, no_stream: bool) -> None:
    """Examine the gateway at TOKENHUB_URL; exit 1 if something fails.

    It looks whether a proxy on the way holds streams back, by the gateway's own events; and one
    short answer of a model is streamed, with TOKENHUB_API_KEY.
    """
    findings = examine(client(), with_stream=not no_stream)
    click.echo(render_findings(findings, is_json=is_json))
    sys.stdout.flush()
    if has_failed(findings):
        raise click.exceptions.Exit(1)


def examine(asking: Client, *, with_stream: bool) -> list[Finding]:
    """All checks that make sense, in the order in which their faults explain each other."""
    findings = [_files(asking.config), _address(asking.config)]
    reached, response = _reach(asking)
    findings.append(reached)
    if response is None:
        return findings
    findings.append(_told(_ready, asking))
    let_in = _token(asking)
    findings += let_in
    findings.append(wires.canary(asking))
    if not has_failed(let_in):
        for check in (wires.clock, *symptoms.CHECKS, wires.buffering):
            findings.append(_told(check, asking))
    if with_stream:
        findings.append(_told(wires.streams, asking))
    return findings


def _told(check: Callable[[Client], Finding], asking: Client) -> Finding:
    """A check that could not be made is a warning: its cause is another's finding."""
    name = check.__name__.strip("_")
    try:
        return check(asking)
    except (Failed, requests.RequestException) as error:
        first = str(error).partition("\n")[0]
        return Finding(name, "warn", f"not checked: {first}")
    except (LookupError, TypeError, ValueError, AttributeError):
        return Finding(name, "warn", "not checked: the answer is not as expected")


def _files(config: Config) -> Finding:
    """Whether others on this machine can read our token."""
    open_files = [
        path
        for path in (config.home_env, config.data_dir / "env", config.data_dir / ".admin-token")
        if path.is_file() and path.stat().st_mode & OTHERS
    ]
    if open_files:
        names = " ".join(map(str, open_files))
        return Finding("files", "fail", f"others may read {names}", f"chmod 600 {names}")
    where = f"the admin token is from {config.token_from}" if config.token_from else "no token"
    return Finding("files", "ok", where)


def _address(config: Config) -> Finding:
    if config.url.startswith("http:") and not config.is_local:
        return Finding(
            "address", "warn", f"{config.url} is not encrypted: tokens can be read on the way",
            "put TLS before the gateway, and https in TOKENHUB_URL",
        )  # fmt: skip
    return Finding("address", "ok", config.url)


def _reach(asking: Client) -> tuple[Finding, requests.Response | None]:
    try:
        response = asking.send("GET", "/healthz", token="", timeout=TIMEOUT_SECS)
    except Failed as error:
        text = str(error).partition("\n")[0]
        return Finding("reachable", "fail", text, "start the gateway, or mend TOKENHUB_URL"), None
    said = parse(response)
    if response.status_code != 200 or not isinstance(said, dict) or "version" not in said:
        text = f"/healthz answers {response.status_code}, not as a TokenHub does"
        by = proxy_of(response)
        text += f"; {clean(by)} has answered" if by else ""
        todo = remedy_of(response) if by else ""
        return Finding("reachable", "fail", text, todo or "mend TOKENHUB_URL or the proxy"), None
    version = clean(said["version"])
    if version != __version__:
        text = f"the gateway is {version}, this command {__version__}"
        return Finding("version", "warn", text, "use that of the gateway's version"), response
    server = response.headers.get("Server", "")
    through = "" if server == OURS else f", through {clean(server) or 'a proxy'}"
    return Finding("reachable", "ok", f"it answers, version {version}{through}"), response


def _ready(asking: Client) -> Finding:
    said = parse(asking.send("GET", "/readyz", token="", timeout=TIMEOUT_SECS))
    reasons = said.get("reasons") if isinstance(said, dict) else ["no answer"]
    if not reasons:
        return Finding("ready", "ok", "traffic may come")
    remedies = {
        "no_model": "add a provider and models, or enable them",
        "database_away": "see whether the database runs",
        "draining": "wait until the gateway has started again",
    }
    words = ", ".join(map(clean, reasons))
    return Finding("ready", "fail", words, remedies.get(reasons[0], "see the gateway's log"))


def _token(asking: Client) -> list[Finding]:
    if not asking.config.admin_token:
        return [Finding("token", "fail", "there is no admin token", "set TOKENHUB_ADMIN_TOKEN")]
    try:
        said = asking.get("session")
    except Failed as error:
        text = str(error).partition("\n")[0]
        return [Finding("token", "fail", text, "mend TOKENHUB_ADMIN_TOKEN")]
    return [Finding("token", "ok", f"it is {clean(said.get('name'))}'s, {clean(said.get('role'))}")]


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [(doctor, ())]

"""`tokenhubctl` for the tests of a running gateway: in this process, or as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from click.testing import CliRunner

from tests.system.harness import ADMIN_TOKEN, ROOT, Gateway
from tokenhub.ctl import run

Done = subprocess.CompletedProcess[str]


def environ(hub: Gateway, **more: str) -> dict[str, str]:
    """What a user has set."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(hub.directory),
        "TOKENHUB_URL": f"http://127.0.0.1:{hub.port}",
        "TOKENHUB_ADMIN_TOKEN": ADMIN_TOKEN,
        "TOKENHUB_API_KEY": hub.key,
        "TZ": "UTC",
        **more,
    }


def ctl(hub: Gateway, *words: str, stdin: str = "", **more: str) -> Done:
    """Call it with no terminal, in this process."""
    with CliRunner().isolation(input=stdin) as (out, err, _):
        status = run(words, environ(hub, **more))
        sys.stdout.flush()
        sys.stderr.flush()
        return Done(words, status, out.getvalue().decode(), err.getvalue().decode())


def said(hub: Gateway, *words: str, stdin: str = "", **more: str) -> str:
    done = ctl(hub, *words, stdin=stdin, **more)
    assert done.returncode == 0, (words, done.stderr, done.stdout)
    assert done.stderr == ""
    return done.stdout


def as_json(hub: Gateway, *words: str) -> dict[str, Any]:
    found = json.loads(said(hub, *words, "--json"))
    assert isinstance(found, dict)
    return found


COMMAND = [sys.executable, "-m", "tokenhub.ctl"]


def process(hub: Gateway, *words: str, **more: str) -> Done:
    """Run it as a user does."""
    return subprocess.run(
        [*COMMAND, *words],
        cwd=ROOT, env=environ(hub, **more), capture_output=True, text=True, timeout=30,
    )  # fmt: skip


@contextmanager
def started(hub: Gateway, *words: str) -> Iterator[subprocess.Popen[str]]:
    """It runs while the test goes on; no longer than the test may wait."""
    popen = subprocess.Popen(
        [*COMMAND, *words],
        cwd=ROOT, env=environ(hub), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    guard = threading.Timer(20, popen.kill)
    guard.start()
    try:
        with popen:
            yield popen
            popen.kill()
    finally:
        guard.cancel()


def next_event(popen: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    assert popen.stdout is not None
    for line in popen.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["type"] == kind:
            return event
    raise AssertionError(f"it ended before any {kind}")

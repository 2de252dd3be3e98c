"""Prometheus' own judge of metrics, rules and configurations."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def promtool(*args: str | Path, text: str = "") -> tuple[int, str]:
    """Run it in `deploy/prometheus` with `text` to read; its status and what it says.

    Without it the test is left out; where nothing may be left out, it fails.
    """
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("TOKENHUB_TEST_REQUIRE") == "all":
            pytest.fail("promtool (Debian's package prometheus) is not installed")
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    done = subprocess.run(
        [program, *map(str, args)],
        cwd=ROOT / "deploy" / "prometheus",
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr

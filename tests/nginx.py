"""A real nginx before a gateway, as an ordinary process."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.harness import Process, can_connect, free_port, wait_until

NAME = "nginx (Debian's package nginx-light)"


@contextmanager
def nginx(directory: Path, upstream_port: int, settings: str = "") -> Iterator[int]:
    """The port of 127.0.0.1 where it passes everything on.

    Without it the test is left out; where nothing may be left out, it fails.

    Args:
        settings: directives for the location.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("TOKENHUB_TEST_REQUIRE") == "all":
            pytest.fail(f"{NAME} is not installed")
        pytest.skip(f"{NAME} is not installed")
    directory.mkdir()
    port, config = free_port(), directory / "nginx.conf"
    config.write_text(_CONFIG.format(directory=directory, port=port, upstream=upstream_port,
                                     settings=settings))  # fmt: skip
    command = [program, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr
    process = Process.start(command, directory / "output.log", dict(os.environ))
    try:
        wait_until(lambda: can_connect(port), what="nginx listens")
        yield port
    finally:
        process.stop()


_CONFIG = """
daemon off;
master_process off;
pid {directory}/pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  gzip_proxied any;
  gzip_min_length 0;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      {settings}
    }}
  }}
}}
"""

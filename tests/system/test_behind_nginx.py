"""Behind a real nginx: streams come as they are sent, and the doctor says so when they do not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.nginx import nginx
from tests.system.ctl_kit import Done, ctl
from tests.system.harness import ADMIN_TOKEN, Gateway, running

pytestmark = pytest.mark.system

IGNORED = "proxy_ignore_headers X-Accel-Buffering;"
"""Our answers ask not to be held back; an operator may have nginx not listen."""
COMPRESSED = "gzip on; gzip_types text/event-stream;"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("nginx")
    trusting = {"TOKENHUB_TRUSTED_PROXIES": "127.0.0.1/32"}
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}", extra=trusting) as found:
        found.add_model("paced", upstream_model="stream-10-50")
        yield found


def examined(hub: Gateway, port: int) -> tuple[Done, dict[str, dict[str, str]]]:
    done = ctl(hub, "doctor", "--json", TOKENHUB_URL=f"http://127.0.0.1:{port}")
    return done, {each["check"]: each for each in json.loads(done.stdout)["checks"]}


@pytest.mark.parametrize("settings", ["", "proxy_buffering off;", "gzip on;"])
def test_the_doctor_finds_nothing_wrong_with_nginx_as_it_comes(hub, tmp_path, settings):
    with nginx(tmp_path / "nginx", hub.port, settings) as port:
        done, checks = examined(hub, port)
    assert done.returncode == 0, done.stdout
    assert {each["verdict"] for each in checks.values()} == {"ok"}, checks
    assert checks["buffering"]["text"] == "streams come as they are sent"


@pytest.mark.parametrize(
    ("settings", "text", "todo"),
    [
        (IGNORED, "held back", "proxy_buffering off"),
        (COMPRESSED + IGNORED, "compressed on the way (gzip)", "text/event-stream off"),
    ],
)
def test_it_says_what_to_do_when_streams_are_held_back(hub, tmp_path, settings, text, todo):
    with nginx(tmp_path / "nginx", hub.port, settings) as port:
        done, checks = examined(hub, port)
    assert done.returncode == 1
    found = checks.pop("buffering")
    assert found["verdict"] == "fail"
    assert text in found["text"] and todo in found["to_do"]
    assert {each["verdict"] for each in checks.values()} == {"ok"}, checks


def test_compressed_streams_that_come_in_time_are_fine(hub, tmp_path):
    with nginx(tmp_path / "nginx", hub.port, COMPRESSED) as port:
        done, checks = examined(hub, port)
    assert done.returncode == 0, done.stdout
    assert checks["buffering"]["text"].endswith("as they are sent, compressed on the way (gzip)")
    assert checks["reachable"]["text"].split(", ")[-1].startswith("through nginx")


@pytest.mark.parametrize(
    ("settings", "pace", "text", "todo"),
    [
        ("client_max_body_size 60;", {}, "HTTP 413", "client_max_body_size"),
        ("proxy_read_timeout 300ms;", {"latency_ms": 2000}, "HTTP 504", "proxy_read_timeout"),
        (
            "proxy_buffering off; proxy_read_timeout 300ms;",
            {"chunks": 3, "interval_ms": 100, "fault": "silent-after-2", "times": 1},
            "broke off",
            "proxy_read_timeout",
        ),
    ],
)
def test_what_nginx_itself_refuses_or_cuts_is_told_as_nginxs(
    hub, tmp_path, settings, pace, text, todo
):
    hub.simulate(**pace)
    try:
        with nginx(tmp_path / "nginx", hub.port, settings) as port:
            done, checks = examined(hub, port)
    finally:
        hub.simulate(chunks=None, interval_ms=None, latency_ms=None, fault=None)
    found = checks["streams"]
    assert (done.returncode, found["verdict"]) == (1, "fail"), checks
    assert text in found["text"] and todo in found["to_do"], found


def test_a_gateway_that_is_away_behind_nginx_is_told_as_such(hub, tmp_path):
    with nginx(tmp_path / "nginx", 1) as port:
        done, checks = examined(hub, port)
    assert done.returncode == 1
    assert "502" in checks["reachable"]["text"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/messages", {"max_tokens": 100}),
        ("/v1/responses", {}),
    ],
)
def test_an_answer_comes_through_piece_by_piece(hub, tmp_path, path, body):
    words = [{"role": "user", "content": "Count"}]
    body |= {"input" if path.endswith("responses") else "messages": words}
    with nginx(tmp_path / "nginx", hub.port) as port:
        times = pieces_of(
            lambda: requests.post(
                f"http://127.0.0.1:{port}{path}",
                json={"model": "paced", "stream": True, **body},
                headers={"Authorization": f"Bearer {hub.key}"}, stream=True, timeout=20,
            )
        )  # fmt: skip
    assert len(times) > 3 and times[-1] - times[0] > 0.1, times


def test_events_come_through_as_they_happen(hub, tmp_path):
    with nginx(tmp_path / "nginx", hub.port) as port:
        address = f"http://127.0.0.1:{port}/admin/v1/events?secs=5&types=route_success"
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        with requests.get(address, headers=headers, stream=True, timeout=20) as feed:
            lines = feed.iter_lines()
            assert next(line for line in lines if line.startswith(b"event:")) == b"event: connected"
            began = time.monotonic()
            hub.chat()
            next(line for line in lines if line.startswith(b"event:"))
            assert time.monotonic() - began < 3


@pytest.mark.rehearse
def test_heartbeats_keep_a_quiet_feed_open(hub, tmp_path):
    with nginx(tmp_path / "nginx", hub.port, "proxy_read_timeout 20s;") as port:
        address = f"http://127.0.0.1:{port}/admin/v1/events?secs=36"
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        with requests.get(address, headers=headers, stream=True, timeout=30) as feed:
            told = [line for line in feed.iter_lines() if line.startswith(b"event:")]
    assert told.count(b"event: heartbeat") >= 2 and told[-1] == b"event: closed", told


def pieces_of(ask: Callable[[], requests.Response]) -> list[float]:
    """When each piece came."""
    times = []
    with ask() as response:
        assert response.status_code == 200, response.text
        while response.raw.read1(65_536):
            times.append(time.monotonic())
    return times

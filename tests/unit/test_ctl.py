"""The client-side command line without a gateway: configuration, formats, events, the manual."""

import io
import json
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import click
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.config.findings import Finding, has_failed, render_findings
from tokenhub.ctl import main, run, show
from tokenhub.ctl.admins import replace_token
from tokenhub.ctl.client import Client, Failed, Refused, Unanswered, segment
from tokenhub.ctl.config import check_url, find_config, read_env
from tokenhub.ctl.events import Frames, follow
from tokenhub.ctl.manual import render_manual
from tokenhub.ctl.symptoms import metrics
from tokenhub.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".tokenhub" / "data").mkdir(parents=True)
    return tmp_path


def config(home, **given: str):
    return find_config({"HOME": str(home), **given})


def test_the_environment_comes_before_the_env_file_unless_it_is_empty(home):
    env = home / ".tokenhub" / "env"
    env.write_text("# x\nTOKENHUB_URL=http://there:1/\nTOKENHUB_ADMIN_TOKEN=of-file\nnonsense\n")
    found = config(home, TOKENHUB_URL="", TOKENHUB_ADMIN_TOKEN="of-env")
    assert (found.url, found.admin_token) == ("http://there:1", "of-env")
    assert config(home).admin_token == "of-file"


def test_what_make_run_has_left_is_found_and_is_for_this_machine_only(home):
    data = home / ".tokenhub" / "data"
    (data / "env").write_text("TOKENHUB_URL=http://127.0.0.1:9\nTOKENHUB_API_KEY=k\n")
    (data / ".admin-token").write_text("of-directory\n")
    found = config(home)
    assert (found.url, found.admin_token, found.api_key) == (
        "http://127.0.0.1:9", "of-directory", "k",
    )  # fmt: skip
    away = config(home, TOKENHUB_URL="https://elsewhere.example")
    assert (away.admin_token, away.api_key) == ("", "")


@pytest.mark.parametrize("url", ["", "ftp://x", "x", "http://u:secret@x", "http://x?y", "http://["])
def test_a_url_that_is_none_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_the_new_token_takes_the_place_of_the_old_one_only(tmp_path):
    path = tmp_path / "env"
    path.write_text("# a\nTOKENHUB_ADMIN_TOKEN=old\n")
    assert not replace_token(path, "other", "new")
    assert replace_token(path, "old", "new")
    assert read_env(path) == {"TOKENHUB_ADMIN_TOKEN": "new"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_values_have_the_originals_formats():
    assert [show.cost(each) for each in (0, 0.01, 0.00001234, None)] == [
        "free", "$0.0100", "$0.00001234", "-",
    ]  # fmt: skip
    assert [show.duration(each) for each in (12, 999, 1500, None)] == ["12ms", "999ms", "1.5s", "-"]
    assert show.price(0.00015) == "0.00015" and show.price(2) == "2.0000"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", show.moment("2026-01-02T03:04:05.678Z"))
    assert show.moment(None) == "-"


@given(st.text())
def test_nothing_reaches_a_terminal_as_a_control_sequence(text):
    assert show.clean(text).isprintable()
    shown = show.as_json({"x": text})
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == {"x": text}


@given(st.lists(st.integers(1, 30), max_size=30))
def test_events_are_whole_wherever_the_bytes_are_cut(cuts):
    data = "".join(f'id: {n}\r\nevent: t\r\ndata: {{"é": {n}}}\r\n\r\n: ping\n\n' for n in range(9))
    raw, found, frames = data.encode(), [], Frames()
    for cut in [*cuts, len(raw)]:
        found += list(frames.feed(raw[:cut]))
        raw = raw[cut:]
    assert [each["id"] for each in found] == [str(n) for n in range(9)]
    assert all(json.loads(each["data"]) for each in found) and frames.last_id == "8"


def test_an_event_is_a_line():
    event = {"type": "route_error", "timestamp": "2026-01-02T03:04:05Z", "model_id": "m",
             "latency_ms": 1500, "error_msg": "a b\x1b", "id": "7"}  # fmt: skip
    line = show.event_line(event)
    assert line.endswith('route_error model=m latency=1.5s error="a b\\x1b"')
    assert line.startswith("[")


def test_secrets_are_taken_out_of_whatever_comes_back(home):
    client = Client(config(home, TOKENHUB_ADMIN_TOKEN="the/token"), ("pass word",))
    assert client.redact("a the/token b the%2Ftoken c pass word") == (
        "a [secret] b [secret] c [secret]"
    )


def test_an_id_cannot_leave_its_place_in_a_path():
    assert segment("a/../b c") == "a%2F..%2Fb%20c"
    for text in ("", ".", ".."):
        with pytest.raises(click.UsageError):
            segment(text)


def answered(status: int, text: str, **headers: str) -> requests.Response:
    """What somebody has answered."""
    response = requests.Response()
    response.status_code, response._content = status, text.encode()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    response.request = requests.Request("GET", "http://there/admin/v1/info").prepare()
    return response


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(413, "client_max_body_size"), (502, "Start the gateway"), (503, "the proxy's log"),
     (504, "proxy_read_timeout")],
)  # fmt: skip
def test_an_error_of_the_proxy_is_told_as_the_proxys(home, status, remedy):
    page = f"<html>\r\n<head><title>{status} Sorry</title></head>\r\n<body>…</body></html>"
    client = Client(config(home))
    with pytest.raises(Refused) as caught:
        client.check(answered(status, page, Server="nginx/1.22.1"))
    first, _, last = str(caught.value).splitlines()
    assert first == f"HTTP {status}: {status} Sorry (said by nginx/1.22.1, not by the gateway)"
    assert remedy in last
    ours = '{"error": {"message": "no", "code": "x"}}'
    with pytest.raises(Refused) as caught:
        client.check(answered(status, ours, Server="nginx/1.22.1", X_Request_Id="req_1"))
    assert "said by" not in str(caught.value) and remedy not in str(caught.value)


def test_a_revision_that_is_none_is_refused_before_anything_is_asked(capsys):
    for revision in ("x", "", "-1", "7,8", '"7', "٣"):
        words = ["model", "edit", "m", "{}", "--if-match", revision]
        assert run(words, {"TOKENHUB_URL": "http://127.0.0.1:1"}) == 1
        assert "a revision is a number such as 7, or *" in capsys.readouterr().err, revision


def test_a_wrong_call_is_1_and_its_usage_is_on_standard_error(capsys):
    assert run(["nonsense"], {}) == 1
    told = capsys.readouterr()
    assert told.out == "" and "tokenhubctl: No such command" in told.err
    assert run(["help"], {}) == 0
    assert "provider-status" in capsys.readouterr().out
    assert run(["version", "--json"], {}) == 0
    assert "version" in json.loads(capsys.readouterr().out)


def test_every_command_that_asks_has_json():
    without = {"help", "completion", "manual"}

    def walk(group: click.Group, path: str):
        for name, each in group.commands.items():
            if isinstance(each, click.Group):
                yield from walk(each, f"{path} {name}")
            elif not any("--json" in option.opts for option in each.params):
                yield f"{path} {name}".strip()

    assert set(walk(main, "")) == without


def test_the_manual_is_what_the_commands_say():
    page = ROOT / "docs" / "tokenhubctl.md"
    assert page.read_text() == render_manual(main), "run `make docs`"


def test_findings_are_a_line_each_and_a_fail_fails():
    found = [Finding("a", "ok", "well"), Finding("b", "fail", "bad\x1b", "mend it")]
    assert has_failed(found) and not has_failed(found[:1])
    assert render_findings(found, is_json=False).splitlines()[1] == "fail  b  bad\\x1b; mend it"
    assert json.loads(render_findings(found, is_json=True))["ok"] is False


class Broken:
    """A gateway whose event stream breaks off after the first event, and is then away once."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, str]] = []

    @contextmanager
    def streaming(self, method: str, path: str, *, query: object, headers: dict[str, str]):
        self.asked.append((query, headers.get("Last-Event-ID", "")))
        if len(self.asked) == 2:
            raise Unanswered("away")
        if len(self.asked) == 4:
            raise Refused("no more", status=401, code="", body=None)
        yield SimpleNamespace(raw=io.BytesIO(f"id: {len(self.asked)}\ndata: {{}}\n\n".encode()))

    def check(self, response: object) -> None:
        """It is well."""


def test_events_go_on_where_they_broke_off_until_the_gateway_refuses(monkeypatch):
    monkeypatch.setattr("tokenhub.ctl.events.time.sleep", lambda secs: None)
    gateway = Broken()
    found: list[str] = []
    with pytest.raises(Refused):
        found.extend(event["id"] for event in follow(cast(Client, gateway), {"types": "x"}))
    assert found == ["1", "3"]
    assert [after for _, after in gateway.asked] == ["", "1", "1", "3"]
    assert all(query == {"types": "x"} for query, _ in gateway.asked)


def test_a_refusal_ends_following_and_a_passing_one_does_not():
    refused = [Refused("", status=status, code="", body=None) for status in (401, 404, 429, 503)]
    assert [each.is_passing for each in refused] == [False, False, True, True]
    assert Unanswered("").is_passing and not Failed("").is_passing


METRICS = """# HELP x
tokenhub_journal_lag_seconds {lag}
tokenhub_store_dropped_total{{op="audit"}} 0
tokenhub_store_dropped_total{{op="log_request"}} {dropped}
tokenhub_board_rows{{table="requests"}} {rows}
tokenhub_board_rows_limit{{table="requests"}} 100
"""


def scraped(text: str) -> Client:
    """A gateway with these metrics."""
    response = SimpleNamespace(text=text)
    gateway = SimpleNamespace(send=lambda *_, **__: response, check=lambda _: None)
    return cast(Client, gateway)


@pytest.mark.parametrize(
    "lag, dropped, rows, verdict, words",
    [
        (0.1, 0, 50, "ok", "none dropped, the journal is 0.1 s behind"),
        (9, 0, 50, "warn", "9 s behind"),
        (0.1, 3, 50, "fail", "3 rows were dropped"),
        (0.1, 0, 95, "warn", "counted as `other`: requests"),
    ],
)
def test_the_doctor_reads_the_metrics(lag, dropped, rows, verdict, words):
    found = metrics(scraped(METRICS.format(lag=lag, dropped=dropped, rows=rows)))
    assert found.verdict == verdict and words in found.text


def test_the_doctor_says_what_metrics_are_not_there():
    found = metrics(scraped("up 1\n"))
    assert found.verdict == "warn" and "tokenhub_journal_lag_seconds" in found.text

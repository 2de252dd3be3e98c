"""`tokenhubctl` against a real gateway of two workers: every command once.

Most are called in process, as what starts them says nothing more; some as processes of their own.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.system.ctl_kit import as_json, ctl, next_event, process, said, started
from tests.system.harness import (
    ADMIN_TOKEN,
    ROOT,
    VAULT_PASSWORD,
    Gateway,
    kill,
    running,
    wait_until,
)

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all; the tests clean up behind themselves."""
    directory = tmp_path_factory.mktemp("ctl")
    prices = directory / "prices.json"
    prices.write_text('{"sim-fast": {"input_cost_per_token": 0.000001}}')
    source = {"TOKENHUB_PRICING_SOURCE": str(prices)}
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}", extra=source) as found:
        yield found


@pytest.fixture(scope="module")
def request_id(hub: Gateway) -> str:
    """Of a request that is in the log."""
    found = hub.chat().headers["x-request-id"]
    wait_until(lambda: hub.admin("GET", f"logs?request_id={found}")["logs"], what="its row")
    return found


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_it_shows_how_the_gateway_stands_and_whom_it_knows(hub):
    assert "Status:" in said(hub, "status") and "Vault initialized:  true" in said(hub, "status")
    assert said(hub, "health").startswith("PROVIDER")
    assert "State:" in said(hub, "provider-status", "sim")
    assert ctl(hub, "provider-status", "nobody").returncode == 1
    for word in (
        "status", "health", "hosts", "prices", "tokens", "sessions", "teams", "budgets", "spend",
        "overview", "attention", "setup", "usage", "breakers", "transitions", "log-level",
    ):  # fmt: skip
        assert as_json(hub, word) is not None
        assert said(hub, word)
    assert said(hub, "prices", "refresh").endswith(" unmatched\n")
    assert said(hub, "sessions", "delete", "nobody") == "Session nobody ended\n"
    assert said(hub, "admin-token").strip() == ADMIN_TOKEN


def test_providers_and_models_are_added_edited_and_deleted(hub):
    new = {
        "id": "p2",
        "nonsense": 1,
        "type": "openai",
        "base_url": "http://127.0.0.1:9",
        "api_key": "sk-1234567",
    }
    bad = ctl(hub, "provider", "add", "-", stdin=json.dumps(new))
    assert bad.returncode == 1 and "sk-1234567" not in bad.stderr
    del new["nonsense"]
    assert said(hub, "provider", "add", stdin=json.dumps(new)) == "Provider p2 saved\n"
    assert said(hub, "provider", "edit", "p2", '{"enabled": false}') == "Provider p2 saved\n"
    lines = said(hub, "providers").splitlines()
    assert lines[0].split() == ["ID", "TYPE", "BASE", "URL", "CREDS", "ENABLED", "MODELS", "SOURCE"]
    assert [line.split()[0] for line in lines[1:]] == ["p2", "sim"]
    model = '{"id": "a/b", "provider_id": "p2", "weight": 2, "input_per_1k": 0.00015}'
    said(hub, "model", "add", model)
    said(hub, "model", "disable", "a/b")
    row = next(line for line in said(hub, "models").splitlines() if line.startswith("a/b"))
    assert row.split()[1:3] == ["p2", "2"] and row.endswith("false") and "0.00015" in row
    said(hub, "model", "enable", "a/b")
    said(hub, "model", "edit", "a/b", '{"weight": 3}')
    said(hub, "model", "delete", "a/b")
    said(hub, "provider", "delete", "p2")
    assert "sim-fast" in said(hub, "engine", "models")
    for words in (["discover", "sim"], ["provider", "discover", "sim"]):
        assert said(hub, *words).startswith("MODEL ID")
    address = f'{{"base_url": "http://127.0.0.1:{hub.simulator_port}"}}'
    assert said(hub, "provider", "test", address).startswith("STEP")
    failed = ctl(hub, "provider", "test", '{"base_url": "http://127.0.0.1:1"}')
    assert failed.returncode == 1 and "it fails at: " in failed.stderr


def test_a_change_can_be_meant_for_one_revision_only(hub):
    def revision(words: tuple[str, ...], listed: str, name: str) -> str:
        rows = as_json(hub, *words)[listed]
        return str(next(each["revision"] for each in rows if name in each.values()))

    made = as_json(hub, "apikey", "create", '{"name": "one"}')["id"]
    for words, listed, name, change in (
        (("model",), "items", "sim-smart", '{"weight": 9}'),
        (("provider",), "items", "sim", '{"enabled": true}'),
        (("apikey",), "keys", made, '{"owner": "me"}'),
    ):
        seen = revision(words, listed, name)
        said(hub, *words, "edit", name, change, "--if-match", seen)
        now = revision(words, listed, name)
        for late in (
            ["edit", name, change],
            ["delete", name, "--yes"],
            ["delete", name, "--dry-run"],
        ):
            refused = ctl(hub, *words, *late, "--if-match", "99999")
            assert refused.returncode == 1 and "revision_mismatch" in refused.stderr
            assert f"its revision is {now}" in refused.stderr and "to do: Look at" in refused.stderr
        said(hub, *words, "edit", name, change, "--if-match", f'"{now}"')
        said(hub, *words, "edit", name, change, "--if-match", "*")
    assert ctl(hub, "model", "disable", "sim-smart", "--if-match", "99999").returncode == 1
    assert ctl(hub, "apikey", "rotate", made, "--if-match", "99999").returncode == 1
    new = '{"id": "unheard-of", "provider_id": "sim"}'
    assert "no such thing" in ctl(hub, "model", "add", new, "--if-match", "*").stderr
    said(hub, "apikey", "delete", made, "--if-match", revision(("apikey",), "keys", made))


def test_a_dry_run_says_who_would_miss_it_and_removes_nothing(hub):
    said(hub, "aliases", "set", "quick", '{"variants": [{"model_id": "sim-fast", "weight": 1}]}')
    told = said(hub, "model", "delete", "sim-fast", "--dry-run").splitlines()
    assert told[0] == "Model sim-fast could be deleted; nothing was changed. Dependents: 1"
    assert [each.split() for each in told[1:]] == [
        ["KIND", "ID", "EFFECT"], ["alias", "quick", "cannot_serve"],
    ]  # fmt: skip
    assert "model" in said(hub, "provider", "delete", "sim", "--dry-run")
    assert said(hub, "aliases", "delete", "quick", "--dry-run").endswith("Dependents: 0\n")
    assert as_json(hub, "apikey", "delete", hub.key_id, "--dry-run")["exists"]
    assert said(hub, "model", "delete", "nobody", "--dry-run") == "Model nobody: there is none\n"
    team = as_json(hub, "teams", "create", '{"name": "held"}')["team"]["id"]
    key = as_json(hub, "apikey", "create", json.dumps({"name": "x", "team_id": team}))["id"]
    assert "could not be deleted" in said(hub, "teams", "delete", team, "--dry-run")
    said(hub, "apikey", "delete", key)
    said(hub, "teams", "delete", team)
    said(hub, "aliases", "delete", "quick")


def test_aliases_routing_and_the_simulator(hub):
    variants = '{"variants": [{"model_id": "sim-fast", "weight": 1}]}'
    said(hub, "aliases", "set", "fast one", variants)
    assert "sim-fast:1" in said(hub, "aliases")
    assert json.loads(said(hub, "aliases", "get", "fast one"))["name"] == "fast one"
    said(hub, "aliases", "delete", "fast one")
    assert json.loads(said(hub, "routing"))["default_mode"]
    said(hub, "routing", "set", '{"default_mode": "cheap"}')
    simulated = json.loads(said(hub, "simulate", '{"mode": "cheap"}'))
    assert simulated["total"] == 3 and simulated["decision"]["model_id"] == "sim-cheap"


def test_keys_teams_and_budgets(hub):
    made = said(hub, "apikey", "create", '{"name": "mine"}')
    assert made.startswith("tokenhub_")
    key_id = made.split("ID: ")[1].split()[0]
    row = next(line for line in said(hub, "apikeys").splitlines() if key_id in line)
    assert " mine " in row and "tokenhub_" in row
    said(hub, "apikey", "edit", key_id, '{"owner": "me"}')
    assert said(hub, "apikey", "rotate", key_id, "--grace", "1h").startswith("tokenhub_")
    said(hub, "budgets", "set", "key", key_id, "day", "5")
    assert "$5.0000" in said(hub, "budgets", "--kind", "key", "--id", key_id)
    said(hub, "apikey", "paid", key_id, "--amount", "1", "--period", "day", "--reason", "test")
    said(hub, "budgets", "paid", "key", key_id, "--amount", "1", "--period", "day")
    assert "test" in said(hub, "budgets", "credits", "key", key_id)
    said(hub, "budgets", "delete", "key", key_id, "day")
    assert said(hub, "budgets", "release", "host_gone") == "0 shares, $0.0000\n"
    team = said(hub, "teams", "create", '{"name": "ops"}').split()[1]
    said(hub, "teams", "edit", team, '{"rpm": 5}')
    assert json.loads(said(hub, "teams", "get", team))["rpm"] == 5
    said(hub, "teams", "delete", team)
    said(hub, "apikey", "delete", key_id)


def test_the_vault_takes_secrets_from_standard_input(hub):
    said(hub, "vault", "secret", "set", "a/b", stdin="two\nlines")
    assert said(hub, "vault", "secret", "get", "a/b") == "two\nlines\n"
    assert said(hub, "vault", "secret", "list") == "a/b\n"
    said(hub, "vault", "secret", "delete", "a/b")
    wrong = ctl(hub, "vault", "unlock", "not-the-password")
    assert wrong.returncode == 1 and "wrong_password" in wrong.stderr
    assert "not-the-password" not in wrong.stderr
    said(hub, "vault", "rotate", stdin=f"{VAULT_PASSWORD}\n{VAULT_PASSWORD}2\n")
    said(hub, "vault", "rotate", f"{VAULT_PASSWORD}2", VAULT_PASSWORD)
    said(hub, "vault", "lock")
    assert "locked" in said(hub, "status")
    said(hub, "vault", "unlock", stdin=f"{VAULT_PASSWORD}\n")


def test_a_model_is_tried_and_its_failure_is_a_failure(hub):
    assert "Status:      200" in said(hub, "model-test", "sim-fast")
    failed = ctl(hub, "model-test", "no-such-model")
    assert failed.returncode == 1
    assert "404" in failed.stdout and "model_not_found" in failed.stderr
    assert ctl(hub, "model-test", "sim-fast", TOKENHUB_API_KEY="").returncode == 1
    said(hub, "health", "clear", "sim")


def test_requests_are_found_by_filters_page_by_page_and_whole(hub, request_id):
    hub.chat("no-such-model")
    hub.chat()
    wait_until(lambda: len(hub.admin("GET", "logs")["logs"]) > 2, what="their rows")
    page = said(hub, "logs", "--limit", "1")
    assert page.startswith("TIME") and "More: --cursor " in page
    first = page.splitlines()[1].split()[-1]
    cursor = page.split("--cursor ")[1].strip()
    second = said(hub, "logs", "--limit", "1", "--cursor", cursor).splitlines()[1].split()[-1]
    assert first != second
    by = ("--model", "sim-fast", "--provider", "sim", "--key", hub.key_id, "--status", "2xx",
          "--outcome", "answered", "--from", "2026-01-01T00:00:00Z", "--stream", "false",
          "--min-attempts", "1", "--endpoint", "/v1/chat/completions")  # fmt: skip
    assert request_id in said(hub, "logs", *by, "--request", request_id)
    assert said(hub, "logs", "--request", request_id, "--outcome", "cut").count("\n") == 1
    assert len(rows_of(said(hub, "logs", "--csv"))) > 3
    lines = said(hub, "logs", "--jsonl", "--request", request_id).splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == [request_id]
    for words in (["--limit", "x"], ["--csv", "--limit", "1"], ["--csv", "--watch"],
                  ["--status", "9000"]):  # fmt: skip
        done = ctl(hub, "logs", *words)
        assert done.returncode == 1 and done.stdout == "", words
    said(hub, "log-level", "error")
    assert "log-level.update" in said(hub, "audit", "--action", "log-level.update")
    assert said(hub, "log-level", "settings") == "warn\n"
    assert len(rows_of(said(hub, "audit", "--csv", "--resource", "nothing"))) == 1
    rewards = json.loads(said(hub, "rewards", "--request", request_id, "--success", "true"))
    assert [each["model_id"] for each in rewards["rewards"]] == ["sim-fast"]
    assert rows_of(said(hub, "rewards", "--csv"))[0][0] == "id"


def test_a_decision_is_explained_and_an_opinion_of_the_answer_is_in_it(hub, request_id):
    said(hub, "feedback", request_id, "0.5")
    assert said(hub, "feedback", request_id, "good") == f"Noted for {request_id}\n"
    assert ctl(hub, "feedback", request_id, "2").returncode == 1
    wait_until(lambda: hub.admin("GET", f"decisions/{request_id}")["feedback"], what="feedback")
    shown = said(hub, "decisions", request_id)
    for words in ("Outcome:", "answered", "CANDIDATE", "ATTEMPT", "FEEDBACK", "sim-fast"):
        assert words in shown, words
    assert as_json(hub, "decisions", request_id)["request_id"] == request_id
    assert ctl(hub, "decisions", "req_nobody").returncode == 1


def test_sums_are_told_of_any_time_and_by_anything(hub, request_id):
    assert {"global", "by_model"} <= json.loads(said(hub, "stats")).keys()
    table = said(hub, "stats", "--group", "model,key", "--window", "1h", "--order", "requests")
    assert table.split("\n")[0].split()[:2] == ["MODEL", "ID"]
    assert "sim-fast" in table and hub.key_id in table
    since = ("--group", "model", "--from", "2026-01-01T00:00:00Z", "--model", "sim-fast")
    assert "sim-fast" in said(hub, "stats", *since, "--limit", "1")
    assert ctl(hub, "stats", "--from", "2026-01-01T00:00:00Z", "--window", "1h").returncode == 1
    assert said(hub, "stats", "--group", "team", "--key", "nobody").startswith("REQUESTS")
    usage = said(hub, "usage", "--group", "model", "--step", "day")
    assert usage.startswith("MODEL ID") and "total" in usage and "This month:" in usage
    assert "sim-fast" in said(hub, "usage", "--csv", "--group", "model")
    assert as_json(hub, "usage", "--model", "nothing")["groups"] == []
    assert "requests" in json.loads(said(hub, "tsdb", "metrics"))["metrics"]
    query = ("metric=requests", "group=model", "model=sim-fast", "provider=sim")
    series = json.loads(said(hub, "tsdb", "query", *query))["series"]
    assert series[0]["model_id"] == "sim-fast" and series[0]["points"]
    whole = json.loads(said(hub, "tsdb", "query", "metric=latency", "agg=p95", "group="))
    assert len(whole["series"]) == 1 and "model_id" not in whole["series"][0]
    assert ctl(hub, "tsdb", "query", "metric=nonsense").returncode == 1
    assert ctl(hub, "tsdb", "query", "nonsense").returncode == 1
    assert said(hub, "tsdb", "retention", "400") == "Retention is 400 days\n"
    assert "deleted" in json.loads(said(hub, "tsdb", "prune"))
    assert said(hub, "overview", "--from", "2026-01-01T00:00:00Z").startswith("From:")


def test_a_provider_is_kept_out_of_use_let_back_and_what_needs_somebody_can_wait(hub):
    said(hub, "breakers", "cool", "provider:sim", "--reason", "a test", "--secs", "60")
    assert "a test (" in said(hub, "breakers", "--held")
    assert "60s" in said(hub, "breakers") or "59s" in said(hub, "breakers")
    assert ctl(hub, "breakers", "cool", "model:nobody", "--reason", "x").returncode == 1
    said(hub, "breakers", "clear", "provider:sim", "--reason", "over")
    assert said(hub, "breakers", "list", "--held").count("\n") == 1
    assert said(hub, "probe", "sim").startswith("URL")
    said(
        hub, "provider", "add", '{"id": "bare", "type": "openai", "base_url": "http://127.0.0.1:9"}'
    )
    items = hub.admin("GET", "attention")["attention"]
    item = next(each["id"] for each in items if each["subject"]["id"] == "bare")
    assert item in said(hub, "attention")
    said(hub, "attention", "snooze", item, "--for", "1h")
    row = next(line for line in said(hub, "attention").splitlines() if item in line)
    assert row.startswith("snoozed")
    said(hub, "attention", "snooze", item, "--for", "600")
    said(hub, "attention", "wake", item)
    assert "snoozed" not in said(hub, "attention", "list")
    said(hub, "provider", "delete", "bare")


def test_administrators_get_tokens_and_the_root_token_is_replaced_in_the_env_file(hub):
    token = said(hub, "tokens", "create", "anna", "viewer").splitlines()[0]
    refused = ctl(hub, "model", "delete", "sim-fast", TOKENHUB_ADMIN_TOKEN=token)
    assert refused.returncode == 1 and "insufficient_role" in refused.stderr
    rows = json.loads(said(hub, "tokens", "--json"))["tokens"]
    said(hub, "tokens", "delete", next(each["id"] for each in rows if each["name"] == "anna"))
    home = hub.directory / ".tokenhub"
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "env").write_text(f"# mine\nTOKENHUB_ADMIN_TOKEN={ADMIN_TOKEN}\n")
    new = said(hub, "rotate-admin-token", TOKENHUB_ADMIN_TOKEN="").splitlines()[0]
    assert (home / "env").read_text() == f"# mine\nTOKENHUB_ADMIN_TOKEN={new}\n"
    said(hub, "rotate-admin-token", "-", stdin=f"{ADMIN_TOKEN}\n", TOKENHUB_ADMIN_TOKEN="")
    said(hub, "status")


def test_errors_say_what_was_asked_and_what_to_do_and_no_secret(hub):
    bad = ctl(hub, "models", TOKENHUB_ADMIN_TOKEN="a-wrong-token-of-ours")
    assert bad.returncode == 1
    assert bad.stderr.startswith("tokenhubctl: HTTP 401:")
    assert "request req_" in bad.stderr and "to do:" in bad.stderr
    assert "GET http://127.0.0.1" in bad.stderr and "a-wrong-token-of-ours" not in bad.stderr
    away = ctl(hub, "models", TOKENHUB_URL="http://127.0.0.1:1")
    assert away.returncode == 1 and "no answer from http://127.0.0.1:1" in away.stderr
    for words in (["nonsense"], ["model", "add", "no json"], ["vault"], ["events", "--type", "x"]):
        done = ctl(hub, *words)
        assert done.returncode == 1, words
    done = process(hub, "logs", "--limit", "x")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout


def test_events_go_on_after_the_connection_has_broken(hub):
    words = ("--all", "--json", "--type", "route_success", "--type", "route_error")
    with started(hub, "events", *words, "--key", hub.key_id) as following:
        next_event(following, "connected")
        hub.chat()
        assert next_event(following, "route_success")["model_id"] == "sim-fast"
        pids = hub.worker_pids()
        for pid in pids:
            kill(pid)
        wait_until(lambda: hub.is_up() and not {*pids} & {*hub.worker_pids()}, 15, "new workers")
        hub.chat("sim-cheap")
        assert next_event(following, "route_success")["model_id"] == "sim-cheap"


def test_what_is_watched_is_shown_again(hub):
    with started(hub, "hosts", "--json", "--watch", "0.2") as watched:
        assert watched.stdout is not None
        lines = (line for line in watched.stdout if '"hosts"' in line)
        assert [next(lines), next(lines)]
    assert ctl(hub, "hosts", "--watch", TOKENHUB_URL="http://127.0.0.1:1").returncode == 1


def test_both_doctors_find_a_healthy_installation(hub):
    findings = json.loads(said(hub, "doctor", "--json"))
    told = {each["check"]: each["text"] for each in findings["checks"]}
    verdicts = {each["check"]: each["verdict"] for each in findings["checks"]}
    assert findings["ok"] and len(verdicts) > 12, findings
    assert verdicts == dict.fromkeys(verdicts, "ok"), findings
    assert "none dropped, the journal is 0" in told["metrics"]
    sick = process(hub, "doctor", TOKENHUB_ADMIN_TOKEN="a-wrong-token-of-ours")
    assert sick.returncode == 1 and "fail  token" in sick.stdout
    server = subprocess.run(
        [sys.executable, "-m", "tokenhub", "doctor", "--json"],
        cwd=ROOT, env=hub.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert server.returncode == 0, server.stdout
    assert {each["check"] for each in json.loads(server.stdout)["checks"]} >= {
        "database",
        "journal",
    }


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands(hub, tmp_path):
    command = tmp_path / "tokenhubctl"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tokenhub.ctl "$@"\n')
    command.chmod(0o755)
    script = process(hub, "completion", "bash").stdout
    asked = (
        f"PATH={tmp_path}:$PATH; {script}\n"
        "COMP_WORDS=(tokenhubctl provider-); COMP_CWORD=1;"
        "_tokenhubctl_completion tokenhubctl; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["provider-status"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_have_their_scripts(hub, shell):
    assert "_TOKENHUBCTL_COMPLETE" in said(hub, "completion", shell)

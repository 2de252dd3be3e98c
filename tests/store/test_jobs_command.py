"""`python -m tokenhub jobs`: what a gateway does from time to time, by hand."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner, Result

from tests.store.test_retention import count, fill
from tokenhub.cli import main
from tokenhub.cluster import Cluster
from tokenhub.db.traffic_tables import request_logs
from tokenhub.errors import Unavailable


@pytest.fixture
def command(database_dsn, tmp_path):
    cleared = dict.fromkeys(name for name in os.environ if name.startswith("TOKENHUB_"))
    environ = {"TOKENHUB_DB_DSN": database_dsn, "TOKENHUB_DATA_DIR": str(tmp_path / "data")}

    def invoke(*arguments: str, **more: str) -> Result:
        env = {**cleared, **environ, **more}
        return CliRunner(env=env).invoke(main, ["jobs", *arguments])

    return invoke


def test_a_job_is_run_and_says_what_it_did(command, database):
    fill(database, 5_000, 25_000, with_buckets=True)
    assert command("run", "prune").output == "done\n"  # not before they are rolled up
    assert command("run", "rollup").output == "buckets: 2\n"
    assert command("run", "prune").output == "request_logs: 2, buckets: 2, rollup_hours: 1\n"
    assert command("run", "prune").output == "done\n"
    assert count(database, request_logs) == 0


def test_an_unknown_job_is_refused_with_those_that_there_are(command, database):
    result = command("run", "dance")
    assert result.exit_code == 1
    assert "no job 'dance': there are rollup, prune," in result.output
    assert ("vacuum" in result.output) is (database.dialect == "sqlite")


def test_a_file_is_written_anew(command, database):
    if database.dialect != "sqlite":
        pytest.skip("SQLite only")
    result = command("run", "vacuum")
    assert (result.exit_code, result.output) == (0, "done\n")


def test_the_last_runs_are_listed_whichever_host_they_were_on(command, database):
    def fail() -> None:
        raise Unavailable("on purpose", code="price_source_failed")

    host = Cluster(database, "host-1")
    host.renew()
    host.run_due("rollup", 300, lambda: None)
    with pytest.raises(Unavailable):
        host.run_due("prune", 900, fail)
    lines = {line.split()[0]: line for line in command("list").output.splitlines()}
    assert "300 s" in lines["rollup"]
    assert lines["rollup"].endswith("done on host-1, try 1")
    assert lines["prune"].endswith("failed: price_source_failed on host-1, try 1")
    assert lines["tidy"].endswith("not written down")


def test_prices_can_be_imported_by_hand(command, tmp_path):
    table = tmp_path / "table.json"
    table.write_text('{"gpt-4o": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06}}')
    (tmp_path / "data").mkdir()
    settings = {
        "TOKENHUB_PRICING_SOURCE": str(table), "TOKENHUB_PRICING_REFRESH_ENABLED": "true"
    }  # fmt: skip
    assert "updated: 0" in command("run", "prices", **settings).output
    table.unlink()
    failed = command("run", "prices", **settings)
    assert (failed.exit_code, "price table" in failed.output) == (1, True)

"""A worker's background work survives what fails in it, and its end is bounded in time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import gevent
import pytest

from tokenhub import jobs, journal
from tokenhub.board import Board
from tokenhub.db import DatabaseAway
from tokenhub.errors import Unavailable
from tokenhub.ingest import ROWS_MAX
from tokenhub.jobs import Background, Job, Leader
from tokenhub.journal import END, Journal
from tokenhub.store import HostState


class Parts:
    """Stands for the catalog, the ingester and the database; does what it is told."""

    can_listen = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_step: Callable[[], int] = lambda: 0

    def step(self) -> int:
        self.calls.append("step")
        return self.on_step()

    def poll(self) -> int:
        self.calls.append("poll")
        return 1

    def current(self) -> None:
        self.calls.append("current")
        raise Unavailable("on purpose")

    def tick(self) -> float:
        self.calls.append("tick")
        return 1

    def leave(self) -> None:
        self.calls.append("leave")

    def renew(self) -> float:
        self.calls.append("renew")
        return 1

    def run_due(self, job: str, every_secs: float, work: Callable[[], object]) -> None:
        self.calls.append(f"{job} is due every {every_secs} s")
        work()

    def release(self) -> None:
        self.calls.append("release")

    def write(self, work: Any) -> int:
        self.calls.append("beat")
        return 3

    @contextmanager
    def listen(self, _channel: str) -> Iterator[Callable[[float], bool]]:
        """A line on which nobody ever says a word."""
        self.calls.append("listen")
        yield lambda secs: bool(gevent.sleep(secs))


class Worker:
    """One worker's background, on a directory that others may share."""

    def __init__(self, directory: Path, board: Board) -> None:
        self.parts = Parts()
        parts: Any = self.parts
        self.board = board
        self.reloads = 0
        numbers = itertools.count(journal.first_segment_number(directory / "journal"))
        self.journal = Journal(
            directory / "journal", "w1", lambda: next(numbers), bytes_max=1 << 30,
            segment_bytes=1 << 16,
        )  # fmt: skip
        self.leader = Leader(
            lock_path=directory / "leader.lock", catalog=parts, ingester=parts,
            steward=parts, database=parts, board=board, host_id="host-1", state=HostState,
        )  # fmt: skip
        self.background = Background(
            journal=self.journal, catalog=parts, leader=self.leader, board=board,
            cluster=parts, on_reload=self.reload, sync_secs=0.01,
        )  # fmt: skip

    def reload(self) -> None:
        self.reloads += 1

    def wait(self, condition: Callable[[], Any]) -> None:
        for _ in range(200):
            if condition():
                return
            gevent.sleep(0.01)
        raise AssertionError("not within 2 s")


@pytest.fixture
def worker(tmp_path, monkeypatch):
    for name in ("ELECTION_SECS", "AWAY_SECS", "FOLLOW_SECS"):
        monkeypatch.setattr(jobs, name, 0.02)
    monkeypatch.setattr(jobs, "STOP_SECS", 0.3)
    return Worker(tmp_path, Board(slots=2))


def segments(worker: Worker, directory: Path) -> set[str]:
    return {each.path.suffix for each in journal.list_segments(directory / "journal")}


def test_the_end_seals_the_journal_ingests_and_lets_another_lead(worker, tmp_path):
    worker.background.start()
    worker.wait(lambda: worker.leader.is_leading)
    worker.journal.append(END, b"last")
    seen: list[set[str]] = []

    def step() -> int:
        seen.append(segments(worker, tmp_path))
        return 0

    worker.parts.on_step = step
    worker.background.stop()
    assert seen[-1] == {".sealed"}
    other = Worker(tmp_path, worker.board)
    assert other.leader.try_to_lead()
    other.background.stop()


@pytest.mark.parametrize("how", ["hangs", "is endless"])
def test_a_database_that_never_answers_cannot_hold_up_the_end(worker, tmp_path, how):
    def step() -> int:
        gevent.sleep(1000 if how == "hangs" else 0.001)
        return ROWS_MAX

    worker.parts.on_step = step
    worker.background.start()
    worker.wait(lambda: "step" in worker.parts.calls)
    began = time.monotonic()
    worker.background.stop()
    assert time.monotonic() - began < 4 * jobs.STOP_SECS
    assert segments(worker, tmp_path) == {".sealed"}
    assert not worker.leader.is_leading
    calls = len(worker.parts.calls)
    gevent.sleep(0.1)
    assert len(worker.parts.calls) == calls, "something goes on after the end"


@pytest.mark.parametrize("error", [DatabaseAway("gone"), ValueError("a bug")])
def test_what_fails_goes_on_failing_and_the_rest_goes_on(worker, tmp_path, error):
    def step() -> int:
        raise error

    worker.parts.on_step = step
    worker.background.start()
    worker.wait(lambda: worker.parts.calls.count("step") > 2)
    assert {"poll", "beat"} <= set(worker.parts.calls)
    worker.background.stop()
    assert segments(worker, tmp_path) == {".sealed"}
    assert not worker.leader.is_leading


def test_a_worker_that_cannot_stand_for_election_tries_again(worker, tmp_path):
    (tmp_path / "leader.lock").mkdir()
    worker.background.start()
    gevent.sleep(0.1)
    assert not worker.leader.is_leading
    (tmp_path / "leader.lock").rmdir()
    worker.wait(lambda: worker.leader.is_leading)
    worker.background.stop()


def test_the_catalog_is_followed_without_any_request(worker):
    worker.background.start()
    worker.wait(lambda: worker.parts.calls.count("current") > 2)
    worker.background.stop()


def test_each_reload_is_done_once_also_one_from_before_the_workers_time(worker):
    worker.board.ask_reload()
    worker.board.ask_reload()
    worker.background.start()
    worker.wait(lambda: worker.reloads)
    gevent.sleep(0.1)
    assert worker.reloads == 1
    worker.board.ask_reload()
    worker.wait(lambda: worker.reloads == 2)
    worker.background.stop()


def test_without_a_reload_the_settings_of_the_start_apply(worker):
    worker.background.start()
    gevent.sleep(0.1)
    worker.background.stop()
    assert worker.reloads == 0


def test_only_one_leads(worker, tmp_path):
    other = Worker(tmp_path, worker.board)
    assert worker.leader.try_to_lead()
    assert not other.leader.try_to_lead()
    worker.leader.step_down()
    assert other.leader.try_to_lead()
    for each in (worker, other):
        each.background.stop()


def test_each_beat_tells_the_board_how_many_hosts_live(worker):
    worker.background.start()
    worker.wait(lambda: worker.board.live_hosts == 3)
    worker.background.stop()


@pytest.mark.parametrize("is_host_ending", [True, False])
def test_only_the_end_of_the_whole_host_is_a_goodbye(worker, is_host_ending):
    worker.background.start()
    worker.wait(lambda: "beat" in worker.parts.calls)
    if is_host_ending:
        worker.board.announce_end()
    worker.background.stop()
    writes = worker.parts.calls.count("beat")
    assert writes == 1 + is_host_ending


def test_who_leads_listens_where_changes_are_announced_and_ends_without_waiting(worker):
    worker.parts.can_listen = True
    worker.background.start()
    worker.wait(lambda: "listen" in worker.parts.calls)
    began = time.monotonic()
    worker.background.stop()
    assert time.monotonic() - began < jobs.STOP_SECS


def schedule(worker: Worker, *scheduled: Job) -> None:
    """Start a worker's background with these jobs."""
    worker.background = Background(
        journal=worker.journal, catalog=cast(Any, worker.parts), leader=worker.leader,
        board=worker.board, cluster=cast(Any, worker.parts), on_reload=worker.reload,
        sync_secs=0.01, scheduled=scheduled,
    )  # fmt: skip
    worker.background.start()


def test_a_job_that_takes_longer_than_its_interval_runs_once_at_a_time_and_fills_no_log(
    worker, caplog
):
    running: list[int] = []

    def work() -> None:
        running.append(1)
        gevent.sleep(0.1)
        assert running.pop() == 1
        assert not running
        worker.parts.calls.append("worked")

    schedule(worker, Job("slow", 0.02, work))
    worker.wait(lambda: worker.parts.calls.count("worked") >= 3)
    worker.background.stop()
    assert [each for each in caplog.records if each.levelname != "INFO"] == []
    assert not running


def test_a_job_that_hangs_is_given_up_and_runs_again(worker, caplog):
    def work() -> None:
        worker.parts.calls.append("began")
        gevent.sleep(1000)

    schedule(worker, Job("stuck", 0.02, work, deadline_secs=0.05))
    worker.wait(lambda: worker.parts.calls.count("began") >= 2)
    worker.background.stop()
    assert "job given up" in {each.message for each in caplog.records}


def test_what_fails_for_a_known_reason_leaves_no_traceback(worker, caplog):
    def work() -> None:
        worker.parts.calls.append("worked")
        raise Unavailable("on purpose", code="price_source_failed")

    schedule(worker, Job("poor", 0.02, work))
    worker.wait(lambda: worker.parts.calls.count("worked") >= 2)
    worker.background.stop()
    failed = next(each for each in caplog.records if each.message == "job failed")
    assert (failed.__dict__["reason"], failed.exc_info) == ("price_source_failed", None)


def test_a_job_of_the_cluster_is_run_by_it_and_the_lease_given_back_at_the_end(worker):
    schedule(worker, Job("shared", 300.0, lambda: worker.parts.calls.append("worked"), "cluster"))
    worker.wait(lambda: "worked" in worker.parts.calls)
    assert {"renew", "shared is due every 300.0 s"} <= set(worker.parts.calls)
    worker.background.stop()
    assert "release" in worker.parts.calls

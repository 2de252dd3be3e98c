"""A write that nobody waits for any more must not happen behind the caller's back."""

from __future__ import annotations

import pytest

from tokenhub.db.work import Job


def make_job(timeout_secs: float = 5.0) -> Job[None]:
    return Job(lambda connection: None, is_write=True, timeout_secs=timeout_secs)


def test_an_abandoned_job_cannot_begin_its_commit():
    job = make_job()
    job.abandon()
    assert job.is_abandoned
    with pytest.raises(TimeoutError):
        job.begin_commit()
    assert not job.is_committing


def test_a_late_job_cannot_begin_its_commit():
    with pytest.raises(TimeoutError):
        make_job(timeout_secs=-1).begin_commit()


def test_a_job_that_has_begun_its_commit_says_so_to_who_abandons_it():
    job = make_job()
    job.begin_commit()
    job.abandon()
    assert job.is_committing


def test_no_time_is_left_after_the_deadline():
    assert make_job(timeout_secs=-1).seconds_left == 0
    assert 4 < make_job().seconds_left <= 5

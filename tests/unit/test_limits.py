"""What passes a bucket and a minute, whatever the moments at which it asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub import limits
from tokenhub.domain import Limits
from tokenhub.limits import NS_PER_SEC, Bucket

SEC = NS_PER_SEC
START = 10**15

gaps_ms = st.lists(st.integers(0, 3000), min_size=1, max_size=120)


def new_minute() -> memoryview[int]:
    return memoryview(bytes(limits.MINUTE_WORDS * 8 + 16)).cast("q")


def writable_minute() -> memoryview[int]:
    return memoryview(bytearray(limits.MINUTE_WORDS * 8 + 16)).cast("q")


def bucket(rps: float, burst: float, hosts: int = 1) -> Bucket:
    found = limits.bucket_of(rps, burst, hosts)
    assert found is not None
    return found


def passes(found: Bucket, times: list[int]) -> list[int]:
    full_at, passed = 0, []
    for now in times:
        full_at, wait_ns = limits.take(found, full_at, now)
        if not wait_ns:
            passed.append(now)
    return passed


def test_a_new_bucket_lets_its_burst_pass_at_once_and_no_more():
    assert len(passes(bucket(10, 25), [START] * 100)) == 25


def test_a_bucket_refills_a_little_at_a_time():
    times = [START] * 5 + [START + each * SEC // 10 for each in range(1, 11)]
    assert len(passes(bucket(2, 5), times)) == 5 + 2


def test_without_a_rate_there_is_no_bucket():
    assert limits.bucket_of(0, 120) is None
    assert limits.share_of(Limits()) == limits.Share(None, 0, 0, 0, 0)


@given(
    rps=st.floats(0.01, 1e6),
    burst=st.integers(1, 200),
    gaps=st.lists(st.integers(0, 2 * SEC), max_size=300),
)
def test_no_span_holds_more_than_the_burst_and_what_came_in_since(rps, burst, gaps):
    found, now, times = bucket(rps, burst), START, []
    for gap in gaps:
        now += gap
        times.append(now)
    passed = passes(found, times)
    for first in range(len(passed)):
        span_ns = passed[-1] - passed[first]
        assert len(passed) - first <= burst + span_ns / found.interval_ns


@given(rps=st.floats(0.01, 1e6), burst=st.integers(1, 50), asked=st.integers(0, 80))
def test_who_waits_as_long_as_told_passes_and_who_waits_less_does_not(rps, burst, asked):
    found, full_at = bucket(rps, burst), 0
    for _ in range(asked):
        full_at, _ = limits.take(found, full_at, START)
    assert limits.left_in(found, full_at, START) == max(0, burst - asked)
    full_at, wait_ns = limits.take(found, full_at, START)
    if wait_ns:
        assert limits.take(found, full_at, START + wait_ns - 1)[1] == 1
        assert limits.take(found, full_at, START + wait_ns)[1] == 0


@given(before=st.floats(1e-6, 1e6), after=st.floats(0.1, 1e6), asked=st.integers(1, 300))
def test_whoever_emptied_a_slow_bucket_waits_no_longer_than_the_new_rate_says(before, after, asked):
    full_at = 0
    for _ in range(asked):
        full_at, _ = limits.take(bucket(before, 200), full_at, START)
    found = bucket(after, 10)
    assert limits.take(found, full_at, START)[1] <= found.interval_ns


@pytest.mark.parametrize("rps", [1e-300, 1e-9, 1e6])
def test_the_slowest_and_the_fastest_rate_fit_a_word(rps):
    full_at = 0
    for _ in range(3):
        full_at, _ = limits.take(bucket(rps, 1_000_000), full_at, 2**60)
    assert full_at < 2**63


@given(rps=st.floats(0.1, 1e5), burst=st.integers(8, 1000), hosts=st.integers(1, 8))
def test_all_hosts_together_let_no_more_pass_than_one_would(rps, burst, hosts):
    part = bucket(rps, burst, hosts)
    assert part.interval_ns == pytest.approx(bucket(rps, burst).interval_ns * hosts, abs=hosts)
    assert len(passes(part, [START] * burst)) * hosts <= burst


def test_a_part_is_never_nothing_for_a_limit_must_not_become_a_ban():
    share = limits.share_of(Limits(rps=0.5, rpm=2, tpm=100, parallel=1), hosts=8)
    assert share.bucket is not None
    assert limits.left_in(share.bucket, 0, START) == 1
    assert share[1:] == (1, 12, 100, 1)


@given(gaps_ms, st.integers(1, 40))
def test_no_minute_holds_more_than_the_limit(gaps, limit):
    words, now, passed = writable_minute(), START, []
    for gap in gaps:
        now += gap * 10**6
        counts = limits.count_minute(words, 1, now)
        excess = sum(counts) + 1 - limit
        if excess > 0:
            wait_ns = limits.wait_for(counts, excess, now)
            assert 0 < wait_ns <= limits.STEPS * limits.STEP_NS
            assert sum(limits.count_minute(words, 1, now + wait_ns)) + 1 <= limit
            assert sum(limits.count_minute(words, 1, now + wait_ns - 1)) + 1 > limit
        else:
            limits.add_to_minute(words, 1, now, 1)
            passed.append(now)
    for at in passed:
        assert sum(at <= each < at + 60 * SEC for each in passed) <= limit


@given(st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 1000)), max_size=60))
def test_a_minute_holds_what_was_counted_in_it_and_at_most_half_a_second_more(events):
    words, now, counted = writable_minute(), START, []
    for gap_ms, count in events:
        now += gap_ms * 10**6
        limits.add_to_minute(words, 1, now, count)
        counted.append((now, count))
        held = sum(limits.count_minute(words, 1, now))
        assert held >= sum(each for at, each in counted if at > now - 60 * SEC)
        assert held <= sum(each for at, each in counted if at > now - 60.5 * SEC)
    assert words[0] == 0
    assert words[len(words) - 1] == 0  # what stands beside it is somebody else's


def test_a_minute_is_read_without_writing():
    assert sum(limits.count_minute(new_minute(), 1, START)) == 0


@given(count=st.integers(0, 500), back=st.integers(0, 700), age_ms=st.integers(0, 130_000))
def test_what_is_taken_back_never_makes_a_debt(count, back, age_ms):
    words = writable_minute()
    limits.add_to_minute(words, 1, START, count)
    now = START + age_ms * 10**6
    limits.add_to_minute(words, 1, now, 100)
    limits.take_back(words, 1, START, back)
    held = sum(limits.count_minute(words, 1, now))
    if age_ms < 59_000 and now // limits.STEP_NS > START // limits.STEP_NS:
        assert held == 100 + max(0, count - back)
    assert held >= 0


def test_a_count_that_no_word_can_hold_is_as_much_as_one_can():
    words = writable_minute()
    for _ in range(2):
        limits.add_to_minute(words, 1, START, 2**63 - 1)
    assert max(limits.count_minute(words, 1, START)) == 2**63 - 1


def test_a_minute_is_empty_when_its_newest_count_has_left():
    words = writable_minute()
    assert limits.empty_in(limits.count_minute(words, 1, START), START) == 0
    limits.add_to_minute(words, 1, START, 5)
    counts = limits.count_minute(words, 1, START)
    wait_ns = limits.empty_in(counts, START)
    assert 60 * SEC < wait_ns <= 60.5 * SEC
    assert not any(limits.count_minute(words, 1, START + wait_ns))


@pytest.mark.parametrize(
    ("wait_ns", "shown", "seconds"),
    [
        (0, "0ms", 1),
        (1, "1ms", 1),
        (17_000_000, "17ms", 1),
        (SEC, "1s", 1),
        (1_500_000_000, "1.5s", 2),
        (59_999_000_000, "59.999s", 60),
        (360 * SEC, "6m0s", 360),
        (60_250_000_000, "1m0.25s", 61),
    ],
)
def test_waits_are_told_as_openai_tells_them(wait_ns, shown, seconds):
    assert (limits.duration(wait_ns), limits.seconds_up(wait_ns)) == (shown, seconds)


def test_one_client_is_an_ipv4_address_or_the_64_of_an_ipv6_one():
    name = limits.network_of
    assert name("2001:db8:1:2::1") == name("2001:db8:1:2:ffff::9") != name("2001:db8:1:3::1")
    assert name("fe80::1%eth0") == name("fe80::2")
    assert name("::ffff:192.0.2.7") == name("192.0.2.7") != name("192.0.2.8")
    assert name("not:an:address") == "not:an:address"


@pytest.mark.parametrize(
    ("now_ms", "wait_ns", "shown"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (1_767_225_599_001, 0, "2026-01-01T00:00:00Z"),
        (1_767_225_599_000, SEC + 1, "2026-01-01T00:00:01Z"),
    ],
)
def test_the_end_of_a_wait_is_told_to_the_second_and_never_too_early(now_ms, wait_ns, shown):
    assert limits.moment(now_ms, wait_ns) == shown

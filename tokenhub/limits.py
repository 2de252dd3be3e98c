"""How many requests and tokens fit into a window, as pure arithmetic.

A `Bucket` refills all the time (requests per second, with a burst); a minute slides by the half
second, over counts in words that the caller keeps. The time is always an argument, in nanoseconds
of a clock that never goes back: at 700,000 requests a second nothing coarser is exact. Knows
nothing of keys, of locks, or of where the words are.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from tokenhub.domain import Limits

NS_PER_SEC = 10**9

STEP_NS = NS_PER_SEC // 2
STEPS = 121
"""A minute of whole steps, and the one that has begun: what was counted stays for 60 to 60.5
seconds, so that no minute, wherever it begins, holds more than the limit."""

MINUTE_WORDS = 1 + STEPS
"""Words that a minute takes: the newest step, and a ring of counts."""

DEPTH_MAX_NS = 2**62  # fits a word together with any time
INTERVAL_MAX_NS = 24 * 3600 * NS_PER_SEC
COUNT_MAX = 2**63 - 1

BURST_PER_RPS = 2
"""A key's burst, in seconds of its rate (reference §1.5)."""

_FREED = memoryview(bytes(STEPS * 8)).cast("q")


class Bucket(NamedTuple):
    """A token bucket, told by the time at which it is full again.

    An empty one fills in `depth_ns`, and each request costs `interval_ns` of it, so one integer is
    its whole state, and one that has been left alone is the same as a new one. This is the generic
    cell rate algorithm (ITU-T I.371, annex A) for bursts of `depth_ns / interval_ns`.
    """

    interval_ns: int
    depth_ns: int


class Share(NamedTuple):
    """What one host may let pass of some limits; None or 0 = no limit.

    Args:
        tpm_whole: the limit that `tpm` is a part of; no single request may take more.
    """

    bucket: Bucket | None
    rpm: int
    tpm: int
    tpm_whole: int
    parallel: int


def bucket_of(rps: float, burst: float, hosts: int = 1) -> Bucket | None:
    """One of `hosts` equal parts of a bucket; None when there is no limit (`rps` is 0).

    However small its part, a host lets single requests pass.
    """
    if rps <= 0:
        return None
    interval_ns = round(min(max(1.0, NS_PER_SEC * hosts / rps), INTERVAL_MAX_NS))
    depth_ns = round(interval_ns * max(1.0, burst / hosts))
    return Bucket(interval_ns, min(depth_ns, DEPTH_MAX_NS))


def share_of(limits: Limits, hosts: int = 1) -> Share:
    """One of `hosts` equal parts of `limits`, rounded down but never to nothing."""
    return Share(
        bucket_of(limits.rps, limits.rps * BURST_PER_RPS, hosts),
        _part(limits.rpm, hosts),
        _part(limits.tpm, hosts),
        limits.tpm,
        _part(limits.parallel, hosts),
    )


def take(bucket: Bucket, full_at_ns: int, now_ns: int) -> tuple[int, int]:
    """Take one request out of a bucket.

    Args:
        full_at_ns: its state; any time that has passed = full. One that lies too far ahead, left
            by another rate, counts as an empty bucket.

    Returns: the new state, and how long to wait: 0 = it may pass, else nothing was taken.
    """
    full_at_ns = min(max(full_at_ns, now_ns), now_ns + bucket.depth_ns)
    taken_ns = full_at_ns + bucket.interval_ns
    wait_ns = taken_ns - now_ns - bucket.depth_ns
    return (full_at_ns, wait_ns) if wait_ns > 0 else (taken_ns, 0)


def left_in(bucket: Bucket, full_at_ns: int, now_ns: int) -> int:
    """How many requests a bucket would let pass now."""
    missing_ns = min(max(0, full_at_ns - now_ns), bucket.depth_ns)
    return (bucket.depth_ns - missing_ns) // bucket.interval_ns


def count_minute(words: memoryview[int], at: int, now_ns: int) -> list[int]:
    """What the last minute holds, step by step, the oldest first; nothing is written.

    Args:
        words, at: where the minute's words are; all 0 = nothing was counted yet.
    """
    newest = words[at]
    ring = words[at + 1 : at + MINUTE_WORDS].tolist()
    oldest = (newest + 1) % STEPS
    counts = ring[oldest:] + ring[:oldest]
    passed = min(now_ns // STEP_NS - newest, STEPS)
    return counts[passed:] + [0] * passed if passed > 0 else counts


def add_to_minute(words: memoryview[int], at: int, now_ns: int, count: int) -> None:
    """Count something now, and forget what is older than a minute."""
    step, newest, ring = now_ns // STEP_NS, words[at], at + 1
    if step - newest >= STEPS:
        words[ring : ring + STEPS] = _FREED
    else:
        for each in range(newest + 1, step + 1):
            words[ring + each % STEPS] = 0
    step = words[at] = max(step, newest)
    place = ring + step % STEPS
    words[place] = min(words[place] + count, COUNT_MAX)


def take_back(words: memoryview[int], at: int, then_ns: int, count: int) -> None:
    """Count less than was counted at `then_ns`, if the minute still holds that."""
    then = then_ns // STEP_NS
    if 0 <= words[at] - then < STEPS:
        place = at + 1 + then % STEPS
        words[place] = max(0, words[place] - count)


def wait_for(counts: Sequence[int], excess: int, now_ns: int) -> int:
    """How long until `excess` of what was counted is older than a minute; 0 = it is none.

    Args:
        counts: as `count_minute` tells them at `now_ns`.
    """
    if excess <= 0:
        return 0
    step = now_ns // STEP_NS
    for place, count in enumerate(counts):
        excess -= count
        if excess <= 0:
            return _leaves_in(step, place, now_ns)
    return _leaves_in(step, STEPS - 1, now_ns)


def empty_in(counts: Sequence[int], now_ns: int) -> int:
    """How long until the minute holds nothing, if nothing more is counted."""
    step = now_ns // STEP_NS
    for place in range(STEPS - 1, -1, -1):
        if counts[place]:
            return _leaves_in(step, place, now_ns)
    return 0


def seconds_up(wait_ns: int) -> int:
    """A wait as `Retry-After` tells it: whole seconds, rounded up, at least one."""
    return max(1, math.ceil(wait_ns / NS_PER_SEC))


def duration(wait_ns: int) -> str:
    """A wait as OpenAI's `x-ratelimit-reset-…` headers tell it: `17ms`, `1.5s`, `6m0s`."""
    ms = -(-wait_ns // 10**6)
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    secs = f"{ms / 1000:g}s"
    return f"{minutes}m{secs}" if minutes else secs


def moment(now_ms: int, wait_ns: int) -> str:
    """When a wait is over, as Anthropic's `anthropic-ratelimit-…-reset` headers tell it: RFC 3339,
    in whole seconds, rounded up.

    Args:
        now_ms: the time of day, in unix milliseconds.
    """
    secs = -(-(now_ms * 10**6 + wait_ns) // NS_PER_SEC)
    return datetime.fromtimestamp(secs, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 one.

    Whoever has an IPv6 address has 2**64 of them. An address of neither kind stays as it is.
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> 64:x}/64"


def _part(limit: int, hosts: int) -> int:
    return limit and max(1, limit // hosts)


def _leaves_in(step: int, place: int, now_ns: int) -> int:
    """When what stands at `place` of a minute's counts is forgotten."""
    return (step + 1 + place) * STEP_NS - now_ns

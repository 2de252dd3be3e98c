"""Scopes, expiry and grace of a key are read in all their spellings, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.domain import SCOPES
from tokenhub.errors import InvalidRequest
from tokenhub.keys import parse_expiry, parse_grace, parse_scopes

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


@given(st.lists(st.sampled_from(sorted(SCOPES))))
def test_scopes_are_taken_as_a_list_and_as_the_originals_string(words):
    expected = tuple(dict.fromkeys(words))
    assert parse_scopes(words) == expected
    assert parse_scopes(orjson.dumps(words).decode()) == expected


@pytest.mark.parametrize("empty", ["", "  ", "[]", []])
def test_empty_scopes_mean_none_not_all_as_in_the_original(empty):
    assert parse_scopes(empty) == ()


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.dictionaries(st.sampled_from(sorted(SCOPES)), st.none()),
        st.lists(st.one_of(st.integers(), st.none(), st.lists(st.none())), min_size=1),
        st.lists(st.text(), min_size=1).filter(lambda words: not SCOPES.issuperset(words)),
        st.sampled_from(
            ["chat", '"chat"', "chat,plan", '{"chat":1}', "null", '["Chat"]', "[" * 9999]
        ),
        st.text(min_size=1).filter(str.strip).filter(lambda text: "[" not in text),
    )
)
def test_anything_else_is_no_list_of_scopes(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_scopes(value)
    assert (caught.value.status, caught.value.param) == (400, "scopes")


def test_without_either_a_key_never_expires():
    assert parse_expiry(None, "", NOW_MS) is None


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("720h", 720 * HOUR_MS),
        ("90m", 90 * 60_000),
        ("30d", 30 * 24 * HOUR_MS),
        ("1h30m", 90 * 60_000),
        ("1d12h", 36 * HOUR_MS),
        ("1.5h", 90 * 60_000),
        (".5h", 30 * 60_000),
        ("1.h", HOUR_MS),
        ("+2s", 2000),
        ("1500ms", 1500),
        ("1s500ms", 1500),
        ("3000000ns", 3),
        ("2000us2000µs2000μs", 6),
        ("0h1ms", 1),
    ],
)
def test_a_duration_is_read_as_go_does_and_days_besides(text, milliseconds):
    assert parse_expiry(text, None, NOW_MS) == NOW_MS + milliseconds


@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 99), st.integers(1, 999))
def test_the_parts_of_a_duration_add_up(hours, minutes, seconds, milliseconds):
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    expected = timedelta(
        hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds
    ) // timedelta(milliseconds=1)
    assert parse_expiry(text, None, NOW_MS) == NOW_MS + expected


@pytest.mark.parametrize(
    "value",
    ["0", "0h", "-1h", "1ns", "h", "1", "1 h", "1h ", "1w", "1H", "--1h", "+-1h", "1e3h", "٣h",
     "1h" * 40, "9" * 13 + "h", "999999999999h", 3600, 1.5, True, False, ["1h"], {}],
)  # fmt: skip
def test_a_duration_that_is_none_or_not_in_the_future_is_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_expiry(value, None, NOW_MS)
    assert (caught.value.status, caught.value.param) == (400, "expires_in")


@given(
    seconds=st.integers(NOW_MS // 1000 + 1, 99_999_999_999),  # the last is in the year 5138
    offset=st.builds(timedelta, minutes=st.integers(-1439, 1439)),
)
def test_a_moment_is_the_same_as_rfc3339_as_seconds_and_as_milliseconds(seconds, offset):
    moment = datetime.fromtimestamp(seconds, timezone(offset))
    for value in (moment.isoformat(), seconds, float(seconds), seconds * 1000):
        assert parse_expiry(None, value, NOW_MS) == seconds * 1000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2030-01-31T00:00:00Z", 0),
        ("2030-01-31t00:00:00z", 0),
        ("2030-01-31 00:00:00.25Z", 250),
        ("2030-01-31T02:00:00.123456789+02:00", 123),
    ],
)
def test_the_spellings_of_rfc3339_are_read(text, milliseconds):
    expected = int(datetime(2030, 1, 31, tzinfo=UTC).timestamp()) * 1000
    assert parse_expiry(None, text, NOW_MS) == expected + milliseconds


@pytest.mark.parametrize(
    "value",
    ["soon", "2030-01-31", "2030-01-31T00:00:00", "20300131T000000Z", "2030-02-30T00:00:00Z",
     "2030-01-31T00:00:00+0200", "2030-01-31T25:00:00Z", "2030-01-31T00:00:00Z\n", "1900000000",
     "2020-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", NOW_MS, NOW_MS // 1000, 0, -1, 10**30,
     float("inf"), float("nan"), True, ["2030-01-31T00:00:00Z"], {}],
)  # fmt: skip
def test_a_moment_that_is_none_or_has_passed_is_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_expiry(None, value, NOW_MS)
    assert (caught.value.status, caught.value.param) == (400, "expires_at")


def test_both_ways_at_once_are_refused():
    with pytest.raises(InvalidRequest, match="not both"):
        parse_expiry("1h", "2030-01-31T00:00:00Z", NOW_MS)


@pytest.mark.parametrize(
    ("value", "hours"), [(None, 0), ("", 0), ("0s", 0), ("24h", 24), ("30d", 720)]
)
def test_a_grace_is_a_duration_of_at_most_30_days(value, hours):
    assert parse_grace(value) == hours * HOUR_MS


@pytest.mark.parametrize("value", ["30d1ms", "-1h", "soon", 24, True, ["1h"], {}])
def test_what_is_no_grace_is_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_grace(value)
    assert (caught.value.status, caught.value.param) == (400, "grace")


@given(st.one_of(st.text(), st.from_regex(r"[+-]?([0-9.]{1,9}[nuµmshd]{1,2}){1,4}")))
def test_no_text_breaks_the_reading_of_a_duration(text):
    try:
        found = parse_expiry(text, None, NOW_MS)
    except InvalidRequest:
        return
    assert found is None or found > NOW_MS


@given(st.one_of(st.text(), st.floats(), st.integers(), st.from_regex(r"[0-9T:Zz+.-]{20,30}")))
def test_nothing_breaks_the_reading_of_a_moment(value):
    try:
        found = parse_expiry(None, value, NOW_MS)
    except InvalidRequest:
        return
    assert found is None or found > NOW_MS

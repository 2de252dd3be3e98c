"""Workflows, as the original answers with Temporal off."""

import pytest


def test_there_are_none_and_temporal_is_off(admin):
    off = {"temporal_enabled": False}
    assert admin.ok("GET", "workflows") == {"workflows": [], **off}
    assert admin.ok("GET", "workflows?limit=200&status=RUNNING") == {"workflows": [], **off}
    assert admin.ok("GET", "workflows/a/b") == off
    assert admin.ok("GET", "workflows/a/history") == off


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=201", "limit"), ("status=done", "status"), ("x=1", "x")],
)
def test_a_wrong_filter_is_refused_by_its_name(admin, query, param):
    assert admin.refused("GET", f"workflows?{query}")[::2] == (400, param)

"""The credentials file: read when it changes, ignored when it is not safe or not sound."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenhub.credentials import CredentialsFile


def write(path: Path, *providers: object, mode: int = 0o600) -> None:
    path.write_text(json.dumps({"providers": providers}))
    path.chmod(mode)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "credentials"


def test_keys_are_found_by_provider(path):
    write(path, {"id": "a", "api_key": "key-a"}, {"id": "b", "api_key": ""}, {"id": "c"})
    file = CredentialsFile(path)
    assert [file.find_key(name) for name in "abcd"] == ["key-a", None, None, None]


def test_an_absent_file_has_no_keys_until_it_is_there_and_none_when_it_is_gone(path):
    file = CredentialsFile(path)
    assert file.find_key("a") is None
    write(path, {"id": "a", "api_key": "key-a"})
    assert file.find_key("a") == "key-a"
    path.unlink()
    assert file.find_key("a") is None


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(path, monkeypatch):
    write(path, {"id": "a", "api_key": "key-1"})
    file = CredentialsFile(path)
    assert file.find_key("a") == "key-1"
    fresh = path.with_name("fresh")
    write(fresh, {"id": "a", "api_key": "key-2"})
    fresh.replace(path)
    assert file.find_key("a") == "key-2"
    monkeypatch.setattr(Path, "read_text", lambda _: pytest.fail("read again"))
    assert file.find_key("a") == "key-2"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_may_read_is_ignored_until_that_is_mended(path, mode, caplog):
    write(path, {"id": "a", "api_key": "canary"}, mode=mode)
    file = CredentialsFile(path)
    with caplog.at_level(logging.WARNING):
        assert file.find_key("a") is None
        assert file.find_key("a") is None
    assert [record.message for record in caplog.records] == [
        "credentials file ignored: run chmod 600"
    ]
    path.chmod(0o600)  # neither its size nor the time of its content changes
    assert file.find_key("a") == "canary"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["providers", "id", "api_key"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(content=st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_it_a_key_is_text_or_none(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    found = CredentialsFile(path).find_key("a")
    assert found is None or (isinstance(found, str) and found)


def test_a_broken_file_is_told_without_its_content(path, caplog):
    path.write_text('{"providers": [{"id": "a", "api_key": "canary"')
    path.chmod(0o600)
    with caplog.at_level(logging.DEBUG):
        assert CredentialsFile(path).find_key("a") is None
    assert "not valid" in caplog.text
    assert "canary" not in caplog.text

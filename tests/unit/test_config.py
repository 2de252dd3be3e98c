"""Settings: every row has a sound default, every fault is named, and the file wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.config import (
    Address,
    Settings,
    render_docs,
    render_env_example,
    rows,
    variable_of,
)
from tokenhub.errors import ConfigError

VARIABLES = [variable_of(name) for name in rows()]


@pytest.fixture
def read(tmp_path):
    """Settings from what is given, in a data directory of the test's own."""
    return lambda **given: Settings.from_env({"TOKENHUB_DATA_DIR": str(tmp_path), **given})


def problems(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as refused:
        Settings.from_env(environ)
    return str(refused.value)


@pytest.mark.parametrize("name", rows())
def test_every_default_is_one_that_could_be_written_down(name):
    row = rows()[name]
    if row.default:
        row.parse(row.default)
    assert row.help.endswith(".")
    assert variable_of(name) in render_docs()
    assert f"{variable_of(name)}={row.default}\n" in render_env_example()


def test_an_empty_environment_is_enough(tmp_path):
    found = Settings.from_env({"TOKENHUB_DATA_DIR": str(tmp_path)})
    assert found.listen_addr == Address("127.0.0.1", 8080)
    assert found.db_dsn == f"sqlite:///{tmp_path}/tokenhub.sqlite"
    assert (found.admin_token, found.env_file, found.trusted_proxies) == ("", None, ())
    assert found.first_byte_secs == 30


def test_proxies_are_known_by_their_ipv4_address_however_it_is_written(read):
    found = read(TOKENHUB_TRUSTED_PROXIES="::ffff:10.0.0.1, 10.1.2.3/8, 2001:db8::1/32")
    assert [str(each) for each in found.trusted_proxies] == [
        "10.0.0.1/32", "10.0.0.0/8", "2001:db8::/32",
    ]  # fmt: skip


def test_an_empty_variable_is_unset(read):
    assert read(**{name: " " for name in VARIABLES if name != "TOKENHUB_DATA_DIR"}) == read()


def test_all_faults_are_named_at_once_and_secrets_are_not_shown(tmp_path):
    said = problems(
        {
            "TOKENHUB_DATA_DIR": str(tmp_path),
            "TOKENHUB_LISTEN_ADDR": "8080",
            "TOKENHUB_WORKERS": "many",
            "TOKENHUB_DEMO": "perhaps",
            "TOKENHUB_DEFAULT_MODE": "Cheap",
            "TOKENHUB_STREAM_IDLE_SECS": "nan",
            "TOKENHUB_TRUSTED_PROXIES": "10.0.0.0/8,nonsense",
            "TOKENHUB_DB_DSN": "mysql://root:canary-password@db/hub",
            "TOKENHUB_ADMIN_TOKEN_FILE": str(tmp_path / "absent"),
        }
    )
    for name in ("LISTEN_ADDR", "WORKERS", "DEMO", "DEFAULT_MODE", "STREAM_IDLE_SECS",
                 "TRUSTED_PROXIES", "DB_DSN", "ADMIN_TOKEN"):  # fmt: skip
        assert f"TOKENHUB_{name}" in said
    assert "canary" not in said


@pytest.mark.parametrize(
    ("text", "host", "port", "bind"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        (":8080", "", 8080, ":8080"),
        ("[::1]:80", "::1", 80, "[::1]:80"),
        ("example.com:0", "example.com", 0, "example.com:0"),
    ],
)
def test_addresses_are_read_and_written_as_gunicorn_wants_them(read, text, host, port, bind):
    found = read(TOKENHUB_LISTEN_ADDR=text).listen_addr
    assert (found.host, found.port, str(found)) == (host, port, bind)


@pytest.mark.parametrize("text", ["8080", ":", "h:70000", "h:-1", "h:\u00b2", "h:" + "9" * 5000])
def test_what_is_no_address_is_refused(read, text):
    with pytest.raises(ConfigError, match="LISTEN_ADDR"):
        read(TOKENHUB_LISTEN_ADDR=text)


@pytest.mark.parametrize(
    ("text", "dsn"),
    [
        ("sqlite:////srv/hub.sqlite", "sqlite:////srv/hub.sqlite"),
        ("file:/srv/hub.sqlite?_journal=WAL", "sqlite:////srv/hub.sqlite"),
        ("/srv/hub.sqlite", "sqlite:////srv/hub.sqlite"),
        ("hub.sqlite", "sqlite:///hub.sqlite"),
        ("postgres://u:p@h:1/d?sslmode=require", "postgresql+psycopg://u:p@h:1/d?sslmode=require"),
        ("postgresql://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_databases_are_named_in_the_originals_ways_as_well(read, text, dsn):
    assert read(TOKENHUB_DB_DSN=text).db_dsn == dsn


@pytest.mark.parametrize(
    "text",
    [":memory:", "file:", "file::memory:?cache=shared", "sqlite:///", "sqlite:///:memory:",
     "sqlite:///?mode=memory", "sqlite://", "mysql://h/d", "~no-such-user-here/hub.sqlite"],
)  # fmt: skip
def test_a_database_that_workers_cannot_share_is_refused(read, text):
    with pytest.raises(ConfigError, match="DB_DSN"):
        read(TOKENHUB_DB_DSN=text)


def test_a_value_may_come_from_a_file_of_its_own(read, tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    given = {"TOKENHUB_ADMIN_TOKEN_FILE": str(tmp_path / "token")}
    assert read(**given).admin_token == "from-file"
    assert read(**given, TOKENHUB_ADMIN_TOKEN=" ").admin_token == "from-file"
    assert read(**given, TOKENHUB_ADMIN_TOKEN="direct").admin_token == "direct"


def test_two_settings_that_end_in_file_are_settings_and_not_files_of_others(read, tmp_path):
    (tmp_path / "my.env").write_text("TOKENHUB_WORKERS=3\n")
    found = read(
        TOKENHUB_ENV_FILE=str(tmp_path / "my.env"),
        TOKENHUB_CREDENTIALS_FILE=str(tmp_path / "absent"),
    )
    assert (found.env_file, found.workers) == (tmp_path / "my.env", 3)
    assert found.credentials_file == tmp_path / "absent"


def test_the_place_of_the_env_file_may_itself_come_from_a_file(read, tmp_path):
    (tmp_path / "my.env").write_text("TOKENHUB_WORKERS=3\n")
    (tmp_path / "place").write_text(f"{tmp_path}/my.env\n")
    assert read(TOKENHUB_ENV_FILE_FILE=str(tmp_path / "place")).workers == 3
    with pytest.raises(ConfigError, match="TOKENHUB_ENV_FILE"):
        read(TOKENHUB_ENV_FILE_FILE=str(tmp_path / "absent"))


def test_the_env_file_wins_over_the_environment(read, tmp_path):
    (tmp_path / "secret").write_text("from-file")
    (tmp_path / "settings.env").write_text(
        "# a comment\n\n"
        "TOKENHUB_WORKERS=3\n"
        ' TOKENHUB_DEFAULT_MODE = "cheap" \n'
        f"TOKENHUB_ADMIN_TOKEN_FILE={tmp_path}/secret\n"
        "TOKENHUB_METRICS_TOKEN=direct\n"
        "TOKENHUB_VAULT_PASSWORD='it's'\n"
    )
    found = read(
        TOKENHUB_WORKERS="5",
        TOKENHUB_MAX_BODY_MB="7",
        TOKENHUB_ADMIN_TOKEN="from-environment",
        TOKENHUB_METRICS_TOKEN_FILE=str(tmp_path / "absent"),
    )
    assert (found.workers, found.max_body_mb, found.default_mode) == (3, 7, "cheap")
    assert (found.admin_token, found.metrics_token) == ("from-file", "direct")
    assert found.vault_password == "it's"


@pytest.mark.parametrize(
    ("value", "meant"), [("a'b'", "a'b'"), ("'", "'"), ("''", ""), ('"a', '"a')]
)
def test_only_quotes_around_the_whole_value_are_taken_off(read, tmp_path, value, meant):
    (tmp_path / "settings.env").write_text(f"TOKENHUB_ADMIN_TOKEN={value}\n")
    assert read().admin_token == meant


def test_a_bad_env_file_is_told_by_line_and_without_its_values(tmp_path):
    (tmp_path / "settings.env").write_text(
        "PATH=/canary\nTOKENHUB_WORKERS\nTOKENHUB_DEMO=perhaps\n"
    )
    said = problems({"TOKENHUB_DATA_DIR": str(tmp_path)})
    assert "settings.env:1" in said and "settings.env:2" in said and "TOKENHUB_DEMO" in said
    assert "canary" not in said


def test_an_env_file_that_was_named_must_be_there_and_be_text(tmp_path):
    place = {"TOKENHUB_DATA_DIR": str(tmp_path)}
    assert "No such file" in problems({**place, "TOKENHUB_ENV_FILE": str(tmp_path / "absent")})
    assert problems({**place, "TOKENHUB_ENV_FILE": str(tmp_path)})
    (tmp_path / "binary").write_bytes(b"TOKENHUB_ADMIN_TOKEN=\xff\n")
    assert problems({**place, "TOKENHUB_ENV_FILE": str(tmp_path / "binary")})
    assert problems({"TOKENHUB_DATA_DIR": "~no-such-user-here/data"})


@given(
    st.dictionaries(
        st.sampled_from([*VARIABLES, *(f"{each}_FILE" for each in VARIABLES)]),
        st.text(max_size=40)
        | st.sampled_from(["1", "0.5", "true", "~x/y", ":1", "a:1", "/", "::"]),
        max_size=8,
    )
)
def test_no_text_whatever_raises_anything_but_a_config_error(environ):
    try:
        found = Settings.from_env({"TOKENHUB_DATA_DIR": "/nonexistent", **environ})
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(found.data_dir, Path)


@given(st.binary(max_size=200))
def test_no_bytes_in_the_env_file_raise_anything_but_a_config_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(data)
    try:
        Settings.from_env({"TOKENHUB_DATA_DIR": "/nonexistent", "TOKENHUB_ENV_FILE": str(path)})
    except ConfigError as error:
        assert str(error)

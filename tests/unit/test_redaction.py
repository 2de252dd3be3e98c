"""No log line shows a secret, wherever it stands; and what only mentions one stays readable."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.telemetry import JsonFormatter
from tokenhub.telemetry.redaction import REDACTED, redact, redact_text, speaks_of_secret

LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
BODY = st.text(LETTERS, min_size=24, max_size=64)
SECRETS = st.one_of(
    BODY.map("tokenhub_{}".format),
    BODY.map("tokenhub_admin_{}".format),
    BODY.map("sk-{}".format),
    BODY.map("sk-ant-api03-{}".format),
    BODY.map("sk-proj-{}".format),
    BODY.map("gsk_{}".format),
    BODY.map("hf_{}".format),
    BODY.map("AIza{}".format),
)
AROUND = st.text(st.characters(codec="utf-8", exclude_categories=("L", "N", "Pc")), max_size=8)


def line(message: str = "it happened", **extra: Any) -> str:
    record = logging.makeLogRecord(
        {"name": "tokenhub.test", "levelname": "INFO", "msg": message, **extra}
    )
    text = JsonFormatter().format(record)
    json.loads(text)
    return text


@given(SECRETS, AROUND, AROUND)
def test_what_looks_like_a_key_is_in_no_line_wherever_it_stands(secret, before, after):
    body = secret[-20:]
    text = f"{before}{secret}{after}"
    assert body not in line(text)
    assert body not in line(fact=text)
    assert body not in line(fact={"deep": [{"deeper": (text, 1)}]})
    assert body not in line(fact={text: 1})
    assert body not in line(fact=RuntimeError(text))
    try:
        raise ValueError(text)
    except ValueError:
        assert body not in line(exc_info=sys.exc_info())


@given(BODY, st.sampled_from([
    "Authorization: Bearer {}", "authorization: {}", "bearer {}", "Basic {}", "x-api-key: {}",
    "postgresql://hub:{}@db/hub", "https://:{}@host/", "?api_key={}&x=1", "password={}",
    "token='{}'", '{{"password": "{}"}}', '{{"api_key":"{}"}}', "Cookie: session={}",
]))  # fmt: skip
def test_what_stands_behind_a_word_that_says_so_is_in_no_line(secret, form):
    text = form.format(secret)
    assert secret not in line(text)
    assert secret not in line(fact=[text])


@given(
    st.text(min_size=1),
    st.sampled_from([
        "authorization", "Authorization", "x-api-key", "proxy-authorization", "cookie",
        "set-cookie", "body", "request_body", "req_body", "api_key", "key", "token", "admin_token",
        "secret", "client_secret", "password", "vault_password", "password_hash", "passphrase",
        "db_dsn", "keys", "tokens", "credential",
    ]),
)  # fmt: skip
def test_what_is_called_a_secret_is_one_whatever_it_looks_like(value, name):
    assert redact(value, name) == REDACTED
    assert redact({name: [value]}) == {name: REDACTED}
    assert redact({"deep": {name: value}}) == {"deep": {name: REDACTED}}


@given(
    st.sampled_from([
        "key_id", "api_key_id", "key_ids", "key_file", "token_count", "key_name", "error_class",
        "request_id", "reason", "model", "monkey", "broken", "provider", "secret_names",
        "token_prefix", "path", "settings", "keyboard",
    ]),
    st.sampled_from(["k1", "key_0190a", "acme/large-2", "/admin/v1/apikeys", "timeout"]),
)  # fmt: skip
def test_what_only_mentions_a_secret_stays_readable(name, value):
    assert not speaks_of_secret(name)
    assert json.loads(line(**{name: value}))[name] == value


@given(st.integers() | st.booleans() | st.none(), st.sampled_from(["tokens", "keys", "token"]))
def test_numbers_are_never_secrets(value, name):
    assert redact(value, name) is value


@pytest.mark.parametrize(
    "text",
    [
        "TOKENHUB_ADMIN_TOKEN: must not be empty", "the provider closed inside the answer",
        "https://api.example.com/v1/chat", "postgresql://db/hub", "tokenhub.access", "skip-this",
        "req_0190a5d3b2c1d4e5f6", "token bucket is empty", "ask-for-more-information",
        "http://127.0.0.1:8080/x@y", "/v1/models/acme:large@2024", "a secret was not found",
    ],
)  # fmt: skip
def test_harmless_words_are_left_alone(text):
    assert redact_text(text) == text


def test_of_an_address_only_the_password_is_hidden():
    shown = redact_text("cannot connect to postgresql://hub:s3cr3t@db:5432/hub now")
    assert shown == f"cannot connect to postgresql://hub:{REDACTED}@db:5432/hub now"


def test_a_loop_ends_and_objects_are_shown_as_text():
    loop: dict[str, Any] = {"name": "x"}
    loop["self"] = loop
    assert "sk-12345678" not in line(fact=loop, other=object())
    assert json.loads(line(fact={1, 2}))["fact"] == [1, 2]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
))  # fmt: skip
def test_whatever_is_logged_is_a_line(value):
    assert "\n" not in line(fact=value)

"""Roles, what they may call, and whose a credential is."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.access import (
    ROLES,
    ROOT_ID,
    Admins,
    AdminSession,
    AdminToken,
    binding_of,
    csrf_token_of,
    digest_of,
    is_allowed,
    is_random,
    needs,
    prefix_of,
    rest_secs,
    role_for,
)

NOW = 1_000_000
RANDOM = "tokenhub_admin_" + "a1" * 32


def token(secret: str, id_: str = "adm_1", **fields) -> AdminToken:
    return AdminToken(id_, fields.pop("name", id_), fields.pop("role", "viewer"),
                      digest_of(secret), **fields)  # fmt: skip


def session(secret: str, made_from: AdminToken, expires_at: int = NOW + 1) -> AdminSession:
    return AdminSession(
        id="ses_1",
        token_id=made_from.id,
        sha256=digest_of(secret),
        binding=binding_of(secret, made_from.sha256),
        created_at=0,
        expires_at=expires_at,
    )


def admins(*tokens: AdminToken, sessions: tuple[AdminSession, ...] = ()) -> Admins:
    return Admins({t.sha256: t for t in tokens}, {s.sha256: s for s in sessions})


CONFIGURED = token("configured", ROOT_ID, name="admin", role="owner")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("needed", ROLES)
def test_a_role_may_do_what_those_below_it_may(role, needed):
    assert is_allowed(role, needed) is (ROLES.index(role) >= ROLES.index(needed))


def test_a_route_that_says_nothing_asks_for_a_viewer_to_read_and_an_operator_to_change():
    def view() -> None: ...

    for method in ("GET", "HEAD", "OPTIONS"):
        assert role_for(view, method, "viewer") == "viewer"
    for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
        assert role_for(view, method, "viewer") == "operator"
        assert role_for(view, method, "owner") == "owner"


def test_a_route_may_ask_for_more_or_less_but_not_for_less_than_all_of_its_kind():
    @needs("owner")
    def secret() -> None: ...

    @needs("viewer")
    def harmless() -> None: ...

    @needs(None)
    def door() -> None: ...

    assert role_for(secret, "GET", "viewer") == "owner"
    assert role_for(harmless, "POST", "viewer") == "viewer"
    assert role_for(harmless, "POST", "owner") == "owner"
    assert role_for(door, "POST", "viewer") is None


def test_tokens_are_found_by_the_whole_of_their_secret():
    found = admins(token(RANDOM))
    assert found.find_token(digest_of(RANDOM), CONFIGURED, NOW) == token(RANDOM)
    for other in (RANDOM[:-1], RANDOM + "x", RANDOM.upper(), "", "configured "):
        assert found.find_token(digest_of(other), CONFIGURED, NOW) is None


def test_the_configured_root_token_holds_until_it_is_rotated_and_never_after():
    assert admins().find_token(digest_of("configured"), CONFIGURED, NOW) is CONFIGURED
    rotated = token("rotated", ROOT_ID, role="owner")
    found = admins(rotated)
    assert found.find_token(digest_of("configured"), CONFIGURED, NOW) is None
    assert found.find_token(digest_of("rotated"), CONFIGURED, NOW) is rotated
    assert (found.root(CONFIGURED), admins().root(CONFIGURED)) == (rotated, CONFIGURED)


def test_a_token_is_nothing_from_the_moment_it_expires():
    found = admins(token(RANDOM, expires_at=NOW + 1))
    assert found.find_token(digest_of(RANDOM), CONFIGURED, NOW) is not None
    assert found.find_token(digest_of(RANDOM), CONFIGURED, NOW + 1) is None


def test_a_session_lives_as_long_as_it_and_its_token_do():
    ours = token(RANDOM, expires_at=NOW + 5)
    found = admins(ours, sessions=(session("s", ours, NOW + 9),))
    admin = found.find_session("s", CONFIGURED, NOW)
    assert admin is not None
    assert (admin.token, admin.actor) == (ours, "session:adm_1")
    assert found.find_session("S", CONFIGURED, NOW) is None
    assert found.find_session("s", CONFIGURED, NOW + 5) is None
    short = admins(replace(ours, expires_at=None), sessions=(session("s", ours, NOW + 9),))
    assert short.find_session("s", CONFIGURED, NOW + 8) is not None
    assert short.find_session("s", CONFIGURED, NOW + 9) is None


@pytest.mark.parametrize(
    "now",
    [
        (),
        (token("another", "adm_1"),),  # made anew under its id
        (token(RANDOM, "adm_2"),),
    ],
)
def test_a_session_is_nothing_without_the_very_token_it_was_made_from(now):
    found = admins(*now, sessions=(session("s", token(RANDOM)),))
    assert found.find_session("s", CONFIGURED, NOW) is None


def test_a_session_of_the_root_token_ends_when_that_is_rotated_or_configured_anew():
    sessions = (session("s", CONFIGURED),)
    assert admins(sessions=sessions).find_session("s", CONFIGURED, NOW) is not None
    rotated = token("rotated", ROOT_ID, role="owner")
    assert admins(rotated, sessions=sessions).find_session("s", CONFIGURED, NOW) is None
    changed = token("changed", ROOT_ID, role="owner")
    assert admins(sessions=sessions).find_session("s", changed, NOW) is None


def test_what_is_stored_and_shown_of_a_session_does_not_give_its_token_or_each_other_away():
    given_out = {csrf_token_of("s"), binding_of("s", digest_of("t")).hex(), digest_of("s").hex()}
    assert len(given_out) == 3
    assert binding_of("s", digest_of("t")) != binding_of("z", digest_of("t"))
    assert digest_of(b"s") == digest_of("s") == sha256(b"s").digest()
    assert digest_of("t").hex() not in repr(token("t")) + repr(session("s", token("t")))


def test_nothing_is_shown_of_a_token_that_somebody_chose():
    assert prefix_of(RANDOM) == RANDOM[:23]
    assert prefix_of("my-own-token-1234") == ""


@pytest.mark.parametrize(
    ("secret", "is_ours"),
    [(RANDOM, True), ("a1" * 32, True), ("a1" * 31, False), (RANDOM + "a", False),
     ("A1" * 32, False), (RANDOM + "\n", False), ("tokenhub_" + "a1" * 32, False), ("", False)],
)  # fmt: skip
def test_only_what_looks_like_256_random_bits_counts_as_unguessable(secret, is_ours):
    assert is_random(secret.encode()) is is_ours


@given(st.integers(min_value=0, max_value=10**6))
def test_a_rest_begins_with_the_tenth_failure_never_shrinks_and_has_an_end(failures):
    assert (rest_secs(failures) > 0) is (failures >= 10)
    assert rest_secs(failures) <= rest_secs(failures + 1) <= 900

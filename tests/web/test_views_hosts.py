"""Every worker of every host gives the same view, and says which host it is about."""

from __future__ import annotations

import pytest

from tests.web.test_vault_hosts import sites  # noqa: F401
from tests.web.views_kit import ago, attempt, beat, sender
from tokenhub.board.transitions import Transition


@pytest.fixture
def both(sites):  # noqa: F811
    """Two hosts with a provider, each of which has served somebody and said how it stands."""
    admins = [sites.start("one"), sites.start("two")]
    admins[0].provider()
    admins[0].model(input_per_1k=0.001, output_per_1k=0.002)
    sites.follow()
    for number, app in enumerate(sites.apps):
        app.services.catalog.current()
        beat(app, app.services.host_state(), name=app.services.host_id)
        send = sender(app)
        send(3 + number, request_id=f"r{number}", key_id=f"key_{number}")
        send(3, request_id=f"f{number}", ending="failed", status=502,
             attempts=[attempt("timeout"), attempt("timeout")])  # fmt: skip
    down = Transition("model", "small", "healthy", "down", "closed", "open", "timeout", ago(-9))
    sites.apps[1].services.events.tell_transition(down)
    sender(sites.apps[1])(request_id="last")  # and with it what was told
    return admins


def test_every_worker_of_every_host_gives_the_same_view(both):
    window = f"from={ago(3000)}&to={ago(0)}"
    for path in (f"overview?{window}", "attention", f"usage?{window}", "setup", "hosts"):
        one, two = (admin.ok("GET", path) for admin in both)
        for each in (one, two):
            each.pop("as_of", None)
        assert one == two
    assert both[0].ok("GET", f"overview?{window}")["requests"]["total"] == 14


def test_an_item_says_which_host_it_is_about(both):
    [found] = both[0].ok("GET", "attention")["attention"]
    assert (found["kind"], found["facts"]["failed_attempts"]) == ("provider_failing", 12)
    [host] = found["facts"]["hosts"]
    assert (host["host_id"], host["model_id"], host["state"]) == ("host_two", "small", "down")


def test_what_one_host_lets_wait_waits_on_the_other(both):
    [found] = both[0].ok("GET", "attention")["attention"]
    both[0].ok("POST", f"attention/{found['id']}/snooze", {"for": "1h"})
    assert both[1].ok("GET", "attention")["attention"] == []

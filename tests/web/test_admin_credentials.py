"""The report on the credentials file, and its fields, which are those of the admin API."""

from __future__ import annotations

import pytest

from tests.provisioning_kit import KEY, write
from tests.web.conftest import PASSWORD
from tokenhub.credentials import Credentials
from tokenhub.domain import Provider
from tokenhub.provisioning import Provisioner
from tokenhub.web.admin import models, providers
from tokenhub.web.admin.credentials import rules

CONTENT = {
    "providers": [{"id": "acme", "base_url": "https://api.example.com", "api_key": KEY}],
    "models": [
        {"id": "small", "provider_id": "acme"},
        {"id": "lost", "provider_id": "nobody"},
    ],
}


@pytest.fixture
def path(app):
    return app.services.settings.credentials_file


@pytest.fixture
def provisioner(app, path):
    """The leader's job, of which a test does the ticking."""
    hub = app.services
    return Provisioner(
        file=Credentials(path, rules(hub.settings)),
        catalog=hub.catalog,
        database=hub.database,
        adapters=hub.gateway.adapters,
        secret_of=lambda _: None,
    )


def test_without_a_file_there_is_nothing_to_report(admin, path):
    assert admin.ok("GET", "credentials-file") == {
        "path": str(path),
        "exists": False,
        "applied_at": None,
        "problems": [],
        "providers": [],
        "models": [],
        "autoloaded_models": [],
    }


def test_the_report_says_what_was_applied_and_what_could_not_be(admin, path, provisioner):
    write(path, CONTENT)
    provisioner.tick()
    report = admin.ok("GET", "credentials-file")
    assert report["exists"]
    assert report["applied_at"]
    assert report["problems"] == ["model lost: its provider is not there"]
    (provider,) = report["providers"]
    assert (provider["id"], provider["is_listed"], provider["has_key"]) == ("acme", True, True)
    assert {each["id"]: each["is_listed"] for each in report["models"]} == {
        "small": True,
        "lost": True,
    }
    assert admin.find("providers", "acme")["cred_store"] == "file"
    write(path, {})
    provisioner.tick()
    report = admin.ok("GET", "credentials-file")
    assert not any(each["is_listed"] for each in [*report["providers"], *report["models"]])
    assert admin.find("models", "small")


def test_the_report_says_what_is_wrong_with_the_file_and_keeps_its_secrets(admin, path):
    write(path, CONTENT, 0o644)
    report = admin.ok("GET", "credentials-file")
    assert report["problems"] == [f"others may read or write it: run chmod 600 {path}"]
    write(path, {"providers": [{"id": "a", "api_key": KEY, "enabled": 1}]})
    report = admin.ok("GET", "credentials-file")
    assert len(report["problems"]) == 2
    assert KEY not in str(report)


def test_what_the_api_made_and_the_file_lists_is_one_and_the_same(admin, path, provisioner):
    admin.ok("POST", "vault/unlock", {"admin_password": PASSWORD})
    admin.provider(api_key="sk-in-the-vault")
    admin.model("small", weight=3)
    write(path, CONTENT)
    provisioner.tick()
    assert admin.find("providers", "acme")["cred_store"] == "file"
    assert admin.find("models", "small")["weight"] == 3
    admin.ok("PATCH", "providers/acme", {"enabled": False})
    provisioner.tick()
    assert not admin.find("providers", "acme")["enabled"]


def test_the_file_takes_of_each_field_what_the_api_takes(app):
    found = rules(app.services.settings)
    shared = {name: reader for name, reader in found.providers.items() if name in providers.FIELDS}
    del shared["type"]
    assert shared.items() <= providers.FIELDS.items()
    assert found.models.items() <= models.FIELDS.items()
    assert set(providers.FIELDS) - set(found.providers) == {"cred_store"}
    assert set(models.FIELDS) - set(found.models) == {"pricing_source", "gemma4_output"}
    with pytest.raises(Exception, match="type must be one of"):
        found.check_provider(Provider("a", "morse", "http://a"))


@pytest.mark.parametrize(
    "planted",
    [{"base_url": "https://evil.example.com"}, {"endpoints": ["https://evil.example.com"]}],
)
@pytest.mark.parametrize("was_listed", [True, False])
def test_a_key_that_the_file_gives_goes_where_the_file_says(
    admin, path, provisioner, planted, was_listed
):
    entry = {"id": "acme", "base_url": "https://api.example.com", "type": "vllm"}
    write(path, {"providers": [entry]} if was_listed else {})
    provisioner.tick()
    admin.provider(**{"type": "vllm", **planted})
    write(path, {"providers": [{**entry, "api_key": KEY}]})
    provisioner.tick()
    found = admin.find("providers", "acme")
    assert (found["cred_store"], found["base_url"]) == ("file", "https://api.example.com")
    assert (found["type"], found["endpoints"]) == ("vllm", [])

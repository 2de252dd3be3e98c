"""What `run` puts into the database, on both databases."""

import pytest
from sqlalchemy import Connection

from tests.newest import list_audit
from tokenhub import store
from tokenhub.cli.demo import arrange_demo, save_demo
from tokenhub.cli.first_start import ensure_host_key, secret_files
from tokenhub.config import Settings
from tokenhub.db import Database
from tokenhub.domain import DEFAULT_SCOPES, Provider, VaultRow
from tokenhub.keys import digest_of

SIMULATOR = "http://127.0.0.1:1"


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / ".host-api-key"


def loaded(database: Database) -> store.Loaded:
    return database.read(store.load_all)


def save_the_demo(database: Database) -> list[Provider]:
    database.write(lambda connection: save_demo(connection, base_url=SIMULATOR))
    return list(loaded(database).providers.values())


def test_the_first_start_makes_a_key_for_this_machine(database, key_file):
    token = ensure_host_key(database, key_file)
    [key] = loaded(database).keys.values()
    assert (key.name, key.scopes) == ("host-local", frozenset(DEFAULT_SCOPES))
    assert key.sha256 == digest_of(token)
    assert key_file.read_text() == f"{token}\n"
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_later_starts_use_the_same_key(database, key_file):
    first = ensure_host_key(database, key_file)
    assert ensure_host_key(database, key_file) == first
    assert len(loaded(database).keys) == 1


@pytest.mark.parametrize("stale", ["", "tokenhub_" + "0" * 64, "not a token\n"])
def test_a_key_file_that_the_database_does_not_know_is_replaced(database, key_file, stale):
    key_file.write_text(stale)
    token = ensure_host_key(database, key_file)
    assert token != stale
    assert digest_of(token) in loaded(database).keys
    assert key_file.read_text() == f"{token}\n"


def test_demo_models_are_marked_priced_and_at_the_simulator(database):
    providers = save_the_demo(database)
    assert {(each.demo, each.base_url, each.cred_store) for each in providers} == {
        (True, SIMULATOR, "none")
    }
    models = loaded(database).models
    assert {each.id: each.upstream_model for each in models.values()} == {
        "demo/fast": "sim-fast", "demo/smart": "sim-smart", "demo/cheap": "sim-cheap",
    }  # fmt: skip
    assert all(each.price.is_known for each in models.values())


def test_a_restart_of_the_demo_changes_addresses_but_no_prices(database):
    save_the_demo(database)
    before = {each.id: each.price.version for each in loaded(database).models.values()}
    save_the_demo(database)
    assert {each.id: each.price.version for each in loaded(database).models.values()} == before


def test_workers_and_auditors_hear_of_every_change(database, key_file):
    ensure_host_key(database, key_file)
    save_the_demo(database)
    audit = database.read(lambda connection: list_audit(connection, 100, 0))
    assert len(audit) == loaded(database).generation == 6
    assert {row["actor"] for row in audit} == {"run"}


@pytest.mark.parametrize("wanted", [True, False])
def test_the_demo_is_gone_when_there_is_a_real_provider(database, wanted):
    save_the_demo(database)

    def add_real(connection: Connection) -> None:
        store.save_provider(connection, Provider("real", "openai", "http://127.0.0.1:2"), 1)

    database.write(add_real)
    providers = list(loaded(database).providers.values())
    assert arrange_demo(database, providers, wanted=wanted) is False
    assert list(loaded(database).providers) == ["real"]
    assert loaded(database).models == {}


def test_the_demo_is_gone_when_nobody_wants_it(database):
    providers = save_the_demo(database)
    assert arrange_demo(database, providers, wanted=False) is False
    assert loaded(database).providers == {}


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings.from_env({"TOKENHUB_DATA_DIR": str(tmp_path)})


def test_secrets_that_nobody_has_set_are_made_once(database, settings):
    variables = secret_files(settings, database)
    paths = {
        "TOKENHUB_ADMIN_TOKEN_FILE": settings.data_dir / ".admin-token",
        "TOKENHUB_VAULT_PASSWORD_FILE": settings.data_dir / "vault-password",
    }
    assert variables == {name: str(path) for name, path in paths.items()}
    made = [path.read_text() for path in paths.values()]
    assert all(len(each) > 32 for each in made)
    secret_files(settings, database)
    assert [path.read_text() for path in paths.values()] == made


def test_no_password_is_made_for_a_vault_that_has_one(database, settings):
    row = VaultRow("vault_1", "{}", b"salt", b"wrapped")
    database.write(lambda connection: store.insert_vault(connection, row, 1))
    assert "TOKENHUB_VAULT_PASSWORD_FILE" not in secret_files(settings, database)
    assert not (settings.data_dir / "vault-password").exists()


def test_secrets_that_the_operator_has_set_are_left_alone(database, tmp_path):
    given = {
        "TOKENHUB_DATA_DIR": str(tmp_path),
        "TOKENHUB_ADMIN_TOKEN": "mine",
        "TOKENHUB_VAULT_PASSWORD": "also mine",
    }
    assert secret_files(Settings.from_env(given), database) == {}
    assert not (tmp_path / ".admin-token").exists()

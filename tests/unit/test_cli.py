"""The server-side commands, as far as they need no database and no gateway."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tokenhub.cli import main
from tokenhub.cli.addresses import check_address, url_of
from tokenhub.cli.first_start import make_directory, write_client_env
from tokenhub.cli.running import greeting
from tokenhub.config import Address, Settings, render_docs, render_env_example
from tokenhub.errors import ConfigError


def invoke(*arguments: str, **environ: str) -> Result:
    cleared = dict.fromkeys(name for name in os.environ if name.startswith("TOKENHUB_"))
    return CliRunner(env={**cleared, **environ}).invoke(main, arguments)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"TOKENHUB_DATA_DIR": str(tmp_path / "it's here")})


def test_a_new_data_directory_is_its_owners_alone(tmp_path):
    make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_data_directory_that_others_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        make_directory(tmp_path)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address("127.0.0.1", 8080), "http://127.0.0.1:8080"),
        (Address("", 8080), "http://127.0.0.1:8080"),
        (Address("0.0.0.0", 80), "http://127.0.0.1:80"),
        (Address("::", 8080), "http://[::1]:8080"),
        (Address("10.0.0.7", 8080), "http://10.0.0.7:8080"),
    ],
)
def test_the_url_leads_to_the_gateway_from_this_machine(address, url):
    assert url_of(address) == url


def test_an_address_that_is_taken_is_noticed_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"):
            check_address(Address("127.0.0.1", port))


def test_the_greeting_shows_where_secrets_are_and_no_secret(settings):
    data = settings.data_dir
    make_directory(data)
    write_client_env(settings, "the-api-key")
    text = greeting(settings, has_demo=True, has_own=False)
    assert f"{data}/.admin-token" in text
    assert (data / ".admin-token").read_text().strip() not in text
    assert "TOKENHUB_API_KEY=the-api-key\n" in (data / "env").read_text()


def test_the_greetings_curl_can_be_pasted_into_a_shell(settings):
    make_directory(settings.data_dir)
    (settings.data_dir / ".host-api-key").write_text("tokenhub_1234\n")
    text = greeting(settings, has_demo=True, has_own=False)
    command = text[text.index("curl ") : text.index("Ctrl-C")]
    shown = subprocess.run(
        ["sh", "-c", f"curl() {{ printf '%s\\n' \"$@\"; }}\n{command}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Authorization: Bearer tokenhub_1234\n" in shown
    assert '\n{"model":"demo/fast","messages":[{"role":"user","content":"Hello"}]}\n' in shown


def test_the_greeting_says_how_it_stands_with_models(settings):
    assert "README.md" in greeting(settings, has_demo=False, has_own=False)
    assert "models       yours\n" in greeting(settings, has_demo=False, has_own=True)


def test_wrong_settings_are_named_all_at_once(tmp_path):
    done = invoke(
        "settings", "check",
        TOKENHUB_DATA_DIR=str(tmp_path), TOKENHUB_WORKERS="many", TOKENHUB_LOG_LEVEL="loud",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "TOKENHUB_WORKERS='many'" in done.output
    assert "TOKENHUB_LOG_LEVEL='loud'" in done.output


def test_right_settings_pass_the_check(tmp_path):
    assert invoke("settings", "check", TOKENHUB_DATA_DIR=str(tmp_path)).exit_code == 0


def test_generated_files_are_printed_as_they_are_kept():
    assert invoke("settings", "env").output == render_env_example()
    assert invoke("settings", "docs").output == render_docs()


def test_a_gateway_that_does_not_answer_is_not_healthy(tmp_path):
    with socket.socket() as closed:  # bound and never listening: nobody else takes the port
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = invoke("healthcheck", TOKENHUB_DATA_DIR=str(tmp_path), TOKENHUB_LISTEN_ADDR=address)
    assert done.exit_code == 1
    assert f"no answer from {address}" in done.output


def test_the_simulator_refuses_to_be_public():
    done = invoke("simulator", "--host", "0.0.0.0", "--port", "8089")
    assert (done.exit_code, "loopback" in done.output) == (1, True)

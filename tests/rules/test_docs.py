"""Documentation that a change has made untrue fails here."""

import re
import subprocess
from pathlib import Path

import pytest

from tokenhub.cli import main
from tokenhub.config import Settings, render_docs, render_env_example, rows, variable_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]

# Not settings of the gateway: what clients read from `<data>/env`, and a switch of the tests.
ELSEWHERE = {"TOKENHUB_URL", "TOKENHUB_API_KEY", "TOKENHUB_TEST_REQUIRE"}

each_page = pytest.mark.parametrize("page", PAGES, ids=IDS)


def code_in(page: Path) -> str:
    """Fenced blocks and inline code; prose may say "make sure"."""
    text = page.read_text()
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    return "\n".join([*fenced, *inline])


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def cli_commands() -> set[str]:
    return set(main.commands)


def test_the_generated_files_are_what_the_settings_say():
    assert (DOCS / "settings.md").read_text() == render_docs(), "run `make docs`"
    assert (ROOT / ".env.example").read_text() == render_env_example(), "run `make docs`"


@pytest.mark.parametrize("name", list(rows()))
def test_every_setting_is_explained_in_a_sentence(name):
    row = rows()[name]
    assert row.help.endswith((".", "`.")), f"{name}: {row.help!r}"
    assert f"`{variable_of(name)}`" in (DOCS / "settings.md").read_text()


def test_the_values_shown_in_the_example_file_are_the_defaults(tmp_path):
    shown = re.findall(r"^# (TOKENHUB_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.M)
    here = {"TOKENHUB_DATA_DIR": str(tmp_path)}
    assert Settings.from_env({**dict(shown), **here}) == Settings.from_env(here)


@each_page
def test_make_targets_that_a_page_names_exist(page):
    assert set(re.findall(r"^make ([a-z-]+)", code_in(page), re.M)) <= make_targets()


@each_page
def test_commands_that_a_page_names_exist(page):
    assert set(re.findall(r"-m tokenhub ([a-z-]+)", code_in(page))) <= cli_commands()


@each_page
def test_variables_that_a_page_names_are_settings(page):
    known = ELSEWHERE | {variable_of(name) for name in rows()}
    named = re.findall(r"\bTOKENHUB_[A-Z_]*[A-Z]\b", page.read_text())
    assert {name for name in named if name not in known} <= {f"{name}_FILE" for name in known}


@each_page
def test_links_within_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_page_is_reached_from_the_index():
    index = (DOCS / "README.md").read_text()
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_every_server_command_is_described_for_operators():
    text = (DOCS / "operations.md").read_text()
    assert {name for name in cli_commands() if f"-m tokenhub {name}" not in text} == set()


def test_make_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == make_targets()
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    )
    assert all(f"make {target} " in done.stdout for target in make_targets())

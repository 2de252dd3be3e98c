"""Documentation that a change has made untrue fails here."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenhub.cli import main
from tokenhub.config import Settings, render_docs, render_env_example, rows, variable_of
from tokenhub.web.errors import _CODES

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


def error_codes() -> Iterator[str]:
    """What callers can be told: of our errors, of HTTP's own, and of the wire's refusals."""
    yield from _CODES.values()
    for path in sorted((ROOT / "tokenhub").rglob("*.py")):
        if "simulator" in path.parts:
            continue  # it plays a provider, and says what those say
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                    yield code
                case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                    yield code
                case ast.Call(
                    func=ast.Name(id="Refusal"), args=[_, _, ast.Constant(value=str(code)), *_]
                ):
                    yield code


def metric_names() -> Iterator[str]:
    """As Prometheus shows them: counters end in `_total`."""
    for path in sorted((ROOT / "tokenhub" / "telemetry").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=str(name)), *_]) if (
                    kind.endswith("MetricFamily")
                ):
                    yield f"{name}_total" if kind.startswith("Counter") else name


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


def test_every_endpoint_is_in_a_table_of_the_api_page():
    described = json.loads((DOCS / "openapi.json").read_text())["paths"]  # tested against the app
    endpoints = {f"{method.upper()} {path}" for path in described for method in described[path]}
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(endpoints)


def test_every_error_code_is_explained_to_callers():
    codes = set(error_codes())
    assert {"model_not_found", "vault_locked", "uri_too_long", "method_not_allowed"} <= codes
    table = (DOCS / "api.md").read_text().partition("## Errors")[2].partition("\n## ")[0]
    explained = {
        code
        for row in re.findall(r"^\| \d{3}[^|]*\|([^|]*)\|", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", row)
    }
    assert explained == codes


def test_the_api_description_knows_no_other_error_codes():
    text = (DOCS / "openapi.json").read_text()
    lists = re.findall(r'"code": {\s*"enum": (\[[^]]*\])', text)
    assert len(lists) > 10
    assert {code for each in lists for code in json.loads(each)} <= set(error_codes())


def test_every_metric_is_explained_to_operators():
    names = set(metric_names())
    assert "tokenhub_requests_total" in names
    text = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"^\| `(tokenhub_\w+)` \|", text, re.MULTILINE)) == names


def test_make_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == make_targets()
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    )
    assert all(f"make {target} " in done.stdout for target in make_targets())

"""docs/reliability.md names tests that exist, and misses none that breaks something on purpose."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()

# Files whose every test breaks something on purpose: none of them may be missing.
FAULTS = (
    "system/test_crash.py", "system/test_outages.py", "system/test_database_trouble.py",
    "system/test_hosts.py", "system/test_start.py", "web/test_long_outage.py",
)  # fmt: skip


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows() -> Iterator[list[str]]:
    """The cells of every row of every table, without the heads."""
    for line in re.findall(r"^\|(.*)\|$", PAGE, re.MULTILINE):
        cells = [cell.strip() for cell in line.split("|")]
        if cells[0] not in ("fault", "---"):
            yield cells


def named_tests() -> set[str]:
    return set(re.findall(r"`(test_\w+)`", PAGE))


def test_every_test_that_the_page_names_exists():
    known = {name for path in (ROOT / "tests").rglob("test_*.py") for name in names_in(path)}
    assert named_tests() - known == set()


def test_every_promise_names_its_proof():
    table = list(rows())
    assert len(table) > 30
    for cells in table:
        assert len(cells) == 4, cells
        assert all(cells), cells
        assert re.search(r"`test_\w+`", cells[3]), cells


def test_every_test_that_breaks_something_is_on_the_page():
    known = {name for each in FAULTS for name in names_in(ROOT / "tests" / each)}
    assert known - named_tests() == set()

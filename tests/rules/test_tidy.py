"""The part of the house style that a parser can check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX = {"file": 400, "function": 60}
PRODUCT = ["app.py", "gunicorn.conf.py", "migrations/env.py", "tokenhub/**/*.py"]
OURS = [*PRODUCT, "migrations/versions/*.py", "tests/**/*.py", "benchmarks/**/*.py"]
MAY_READ_ENVIRON = {"app.py", "gunicorn.conf.py", "migrations/env.py", "tokenhub/cli/common.py",
                    "tokenhub/ctl/__main__.py", "tokenhub/preflight.py"}  # fmt: skip
MAY_PRINT = {"tokenhub/cli/common.py"}


def sources(patterns: list[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def untidy(source: str) -> Iterator[str]:
    """What is wrong with any file of ours, tests included."""
    tree = ast.parse(source)
    if tree.body and not ast.get_docstring(tree):
        yield "1: no module docstring"
    if source.count("\n") > LINES_MAX["file"]:
        yield f"1: more than {LINES_MAX['file']} lines"
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name, lineno=start, end_lineno=int(end)):
                if end - start >= LINES_MAX["function"]:
                    yield f"{start}: {name} has over {LINES_MAX['function']} lines"
            case ast.Global():
                yield f"{node.lineno}: global statement"
            case ast.ExceptHandler(type=None):
                yield f"{node.lineno}: bare except"


def impure(name: str, source: str) -> Iterator[str]:
    """What a file of the product does that only its edges may do."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr="environ" | "getenv", value=ast.Name(id="os")):
                if name not in MAY_READ_ENVIRON:
                    yield f"{node.lineno}: reads the environment: take Settings instead"
            case ast.ImportFrom(module="os", names=names):
                if {each.name for each in names} & {"environ", "getenv"}:
                    yield f"{node.lineno}: hides where the environment is read"
            case ast.Call(func=ast.Name(id="print")) if name not in MAY_PRINT:
                yield f"{node.lineno}: print"


def test_every_source_file_is_tidy():
    faults = [
        f"{name_of(path)}:{fault}" for path in sources(OURS) for fault in untidy(path.read_text())
    ]
    assert not faults, "\n".join(faults)


def test_only_the_edges_read_the_environment_or_print():
    faults = [
        f"{name_of(path)}:{fault}"
        for path in sources(PRODUCT)
        for fault in impure(name_of(path), path.read_text())
    ]
    assert not faults, "\n".join(faults)


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 60


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x = 1\n", "1: no module docstring"),
        ('"""Doc."""\n' + "\n" * 400, "1: more than 400 lines"),
        ('"""Doc."""\n' + LONG_FUNCTION, "2: f has over 60 lines"),
        ('"""Doc."""\ndef f():\n    global x\n', "3: global statement"),
        ('"""Doc."""\ntry:\n    f()\nexcept:\n    pass\n', "4: bare except"),
    ],
)
def test_an_untidy_file_is_noticed(source, fault):
    assert list(untidy(source)) == [fault]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import os\nos.environ['X']\n", 2),
        ("import os\nos.getenv('X')\n", 2),
        ("print(1)\n", 1),
    ],
)
def test_an_impure_file_is_noticed(source, line):
    assert [fault.partition(":")[0] for fault in impure("tokenhub/x.py", source)] == [str(line)]
    assert not list(impure("tokenhub/cli/common.py", source))


def test_the_environment_is_not_imported_by_another_name():
    assert list(impure("tokenhub/cli/common.py", "from os import environ\n"))

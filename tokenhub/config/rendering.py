"""`docs/settings.md` and `.env.example`, rendered from the rows of the settings."""

from __future__ import annotations

from tokenhub.config.settings import rows, variable_of


def render_env_example() -> str:
    """`.env.example`: every variable with its default, commented out."""
    lines = ["# Every setting of TokenHub, at its default. Generated: run `make docs`.", ""]
    section = ""
    for name, row in rows().items():
        if row.section != section:
            section = row.section
            lines += [f"## {section}", ""]
        lines += [f"# {row.help}", f"# {variable_of(name)}={row.default}", ""]
    return "\n".join(lines)


def render_docs() -> str:
    """`docs/settings.md`: the same rows as a table for each section."""
    lines = [
        "# Settings",
        "",
        "Generated from `tokenhub/config/settings.py`: run `make docs`. A bad value stops the",
        "start, and all problems are listed at once. An empty variable is unset. Any variable `X`",
        "may come from a file through `X_FILE`. What is saved through the admin API wins over the",
        "env file, which wins over the environment.",
    ]
    section = ""
    for name, row in rows().items():
        if row.section != section:
            section = row.section
            lines += ["", f"## {section}", "", "| variable | default | meaning |", "|---|---|---|"]
        default = f"`{row.default}`" if row.default else "–"
        lines.append(f"| `{variable_of(name)}` | {default} | {row.help} |")
    return "\n".join([*lines, ""])

"""Settings: one row per variable, one parser, all problems reported at once."""

from tokenhub.config.rendering import render_docs, render_env_example
from tokenhub.config.settings import Row, Settings, rows, variable_of
from tokenhub.config.values import Address, Network, network

__all__ = [
    "Address",
    "Network",
    "Row",
    "Settings",
    "network",
    "render_docs",
    "render_env_example",
    "rows",
    "variable_of",
]

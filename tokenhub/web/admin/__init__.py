"""The admin API: what may be routed to, by whom, and how it is going.

Paths and fields are the original's (reference/operations.md §5), weak spots mended. One hook lets
in administrators, as far as their role goes; one module for each noun.
"""

from __future__ import annotations

from flask import Blueprint

from tokenhub.web import access, guards
from tokenhub.web.admin import (
    aliases,
    budgets,
    credentials,
    discover,
    health,
    hosts,
    keys,
    models,
    prices,
    providers,
    routing,
    sessions,
    teams,
    tokens,
    views,
)

blueprint = Blueprint("admin", __name__, url_prefix="/admin/v1")

NOUNS = (
    providers, discover, credentials, models, aliases, prices, keys, teams, budgets, routing,
    health, hosts, views, tokens, sessions,
)  # fmt: skip

for _noun in NOUNS:
    blueprint.register_blueprint(_noun.routes)


@blueprint.before_request
def require_admin() -> None:
    """Nothing here is for anybody else."""
    access.require_admin(guards.services())

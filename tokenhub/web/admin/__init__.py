"""The admin API: what may be routed to, by whom, and how it is going.

Paths and fields are the original's (reference/operations.md §5), weak spots mended. One hook lets
in administrators, as far as their role goes; one module for each noun.
"""

from __future__ import annotations

from flask import Blueprint, request

from tokenhub.web import access, forms, guards
from tokenhub.web.admin import (
    aliases,
    attention,
    audit,
    breakers,
    budgets,
    credentials,
    decisions,
    discover,
    events,
    health,
    hosts,
    keys,
    log_level,
    logs,
    models,
    overview,
    prices,
    providers,
    rewards,
    routing,
    sessions,
    simulating,
    stats,
    teams,
    tokens,
    trying,
    tsdb,
    usage,
    views,
    workflows,
)

BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})

blueprint = Blueprint("admin", __name__, url_prefix="/admin/v1")

NOUNS = (
    providers, trying, discover, credentials, models, aliases, prices, keys, teams, budgets,
    routing, simulating, breakers, health, events, hosts, log_level, logs, audit, rewards,
    decisions, stats, tsdb,
    overview, attention, usage, views, tokens, sessions, workflows,
)  # fmt: skip

for _noun in NOUNS:
    blueprint.register_blueprint(_noun.routes)


@blueprint.before_request
def require_admin() -> None:
    """Nothing here is for anybody else; and what is to be changed is said in the body."""
    access.require_admin(guards.services())
    if request.method in BODY_METHODS:
        forms.check_query()

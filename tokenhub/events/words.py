"""The words of the event feed: its types, and who says them.

A closed set: what a stream can be asked for, and what its readers must know. Pure.
"""

from __future__ import annotations

from typing import Literal

Published = Literal[
    "health_change", "key_rotation_expired", "budget_alert", "feedback", "escalation",
    "vault_change", "workflow_started", "workflow_completed", "workflow_failed",
    "activity_completed", "stream_started",
]  # fmt: skip
"""What is written down as it happens. The last five are for workflows: nobody says them yet."""

PUBLISHED: tuple[Published, ...] = (
    "health_change", "key_rotation_expired", "budget_alert", "feedback", "escalation",
    "vault_change", "workflow_started", "workflow_completed", "workflow_failed",
    "activity_completed", "stream_started",
)  # fmt: skip

ROUTE_SUCCESS, ROUTE_ERROR = "route_success", "route_error"
"""A request has ended: what its log row says."""
CONFIG_CHANGE = "config_change"
"""The catalog has a new version: what its change log says."""
HEARTBEAT = "heartbeat"
"""Made by each stream, and never stored."""

TYPES: tuple[str, ...] = (ROUTE_SUCCESS, ROUTE_ERROR, CONFIG_CHANGE, *PUBLISHED, HEARTBEAT)

SUCCESSES = frozenset({"answered", "rescued"})
"""Endings of requests that got what they asked for."""

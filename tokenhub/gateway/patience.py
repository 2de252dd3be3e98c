"""How long providers may take, as the settings say."""

from __future__ import annotations

from dataclasses import replace

from tokenhub.config import Settings
from tokenhub.providers.base import Timeouts


def stream_timeouts(settings: Settings) -> Timeouts:
    """For an answer that comes in pieces."""
    return Timeouts(
        connect_secs=settings.first_byte_secs,
        first_byte_secs=settings.first_byte_secs,
        idle_secs=settings.stream_idle_secs,
        total_secs=settings.provider_total_secs,
    )


def whole_timeouts(settings: Settings) -> Timeouts:
    """For a whole answer: a provider that does not stream says nothing until it has finished."""
    total_secs = settings.provider_timeout_secs or settings.provider_total_secs
    return replace(stream_timeouts(settings), first_byte_secs=total_secs, total_secs=total_secs)

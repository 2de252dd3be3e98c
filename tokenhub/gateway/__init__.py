"""Serve a request: decide, attempt, fail over, settle. Whole and streamed are the same path."""

from tokenhub.gateway.attempts import NotNeeded
from tokenhub.gateway.called import Called
from tokenhub.gateway.counting import count_tokens
from tokenhub.gateway.exchange import Exchange, begin
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.patience import stream_timeouts, whole_timeouts
from tokenhub.gateway.relay import Relay
from tokenhub.gateway.told import Told

__all__ = [
    "Called",
    "Exchange",
    "Gateway",
    "NotNeeded",
    "Relay",
    "Told",
    "begin",
    "count_tokens",
    "stream_timeouts",
    "whole_timeouts",
]

"""Serve a request: decide, attempt, fail over, settle. Whole and streamed are the same path."""

from tokenhub.gateway.exchange import Exchange, begin
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.relay import Relay

__all__ = ["Exchange", "Gateway", "Relay", "begin"]

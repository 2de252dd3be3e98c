"""The wire of OpenAI's Responses, for providers that are marked to speak the dialect themselves.

Requests and answers pass as they came, but for the model's name. Wire format:
https://platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

from tokenhub.dialects.responses import passing
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Meter
from tokenhub.providers.wires import Said, Wire, as_it_came

EVENT_BYTES_MAX = 16 << 20
"""A generated image is one event, and the last one has all of them once more."""


class _Responses(Wire):
    """A wire whose events wrap the error of a response that has failed."""

    def fault_of(self, data: bytes) -> ProviderError | None:
        return Wire.fault_of(self, passing.failure_in(data))


def _say(request: ChatRequest, model: str, stream: bool) -> Said:
    said = as_it_came(request, model, stream)
    return Said(*passing.without_unknown(said.body))


def _meter(request: ChatRequest) -> Meter:
    return passing.StreamMeter(split=events)


RESPONSES = _Responses(
    dialect="responses",
    path="/v1/responses",
    is_answer=passing.is_answer,
    reports_error=passing.reports_error,
    usage_of=passing.usage_of,
    opens=passing.opens_stream,
    ends=passing.ends_stream,
    meter=_meter,
    say=_say,
    event_bytes_max=EVENT_BYTES_MAX,
)

"""The way of spans to a collector: a bounded queue, batches, and a greenlet beside the requests.

A request leaves its Outcome in the queue and goes. If the collector is slow, dead or silent, the
queue fills up, and what does not fit is dropped and counted: no request waits or fails for it.
Knows neither catalog nor gateway.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Sequence

import gevent
import orjson
from gevent.event import Event

from tokenhub.config import Settings
from tokenhub.domain import Outcome, Trace
from tokenhub.errors import ConfigError, ProviderError
from tokenhub.providers.base import Timeouts
from tokenhub.providers.upstream import Endpoint, Exchange, Upstream, endpoint_of, header_line
from tokenhub.tracing.context import trace_of
from tokenhub.tracing.spans import Asked, Json, attempt_span, export_request, request_span

QUEUE_MAX = 2048
"""Requests that wait to be exported, at most; as many as the official SDK keeps spans."""
BATCH_MAX = 128
FLUSH_SECS = 1.0
"""How long spans wait for company."""
PAUSE_SECS_MAX = 30.0
"""How long a collector that fails is left alone, at most; first FLUSH_SECS, then twice as long."""
CLOSE_SECS = 2.0
EXPORT_SECS = 10.0
TIMEOUTS = Timeouts(*[EXPORT_SECS] * 4)
AT_ONCE = 16
"""So many requests are put into words before others have their turn."""
ANSWER_BYTES_MAX = 1 << 20
TRACES_PATH = "/v1/traces"
TRY_AGAIN = frozenset({429, 502, 503, 504})
"""Statuses after which the same batch is sent again (OTLP/HTTP, "Failures"); after others it goes
lost, for it would meet them again."""

log = logging.getLogger("tokenhub.tracing")

Find = Callable[[str, str], Asked]
"""Says of whom an attempt asked: by model id and provider id, which may be gone meanwhile."""


class Tracer:
    """One worker's. Its greenlet begins with the first request, and so after the fork.

    Args:
        endpoint: where spans are posted to.
        headers: header lines that are sent along, a collector's key perhaps.
        service: how the spans call us.
        ratio: the share of traces that begin here and are sampled, 0 to 1.
        find: see Find.

    Attributes:
        dropped: requests whose spans were given up.
    """

    def __init__(
        self, endpoint: Endpoint, *, headers: bytes, service: str, ratio: float, find: Find
    ) -> None:
        self._endpoint = endpoint
        self._headers = headers
        self._service = service
        self._ratio = ratio
        self._find = find
        # Answers of a collector are short; it may be on this machine.
        self._upstream = Upstream(ANSWER_BYTES_MAX, allow_private=True)
        self._rng = random.Random()
        self._queue: deque[Outcome] = deque()
        self._wake = Event()
        self._is_closing = False
        self._is_well = True
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self.dropped = 0

    def begin(self, parent: str, state: str) -> Trace:
        """Where a request stands; see `trace_of`."""
        return trace_of(parent, state, rng=self._rng, ratio=self._ratio)

    def take(self, outcome: Outcome) -> None:
        """A request has ended; never waits and never fails."""
        trace = outcome.trace
        if trace is None or not trace.is_sampled:
            return
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)
        if len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._queue.append(outcome)
        if len(self._queue) == BATCH_MAX:
            self._wake.set()

    def close(self) -> None:
        """Send what is waiting, for CLOSE_SECS at most, and end."""
        self._is_closing = True
        self._wake.set()
        if self._greenlet is not None:
            self._greenlet.join(CLOSE_SECS)
            self._greenlet.kill(timeout=CLOSE_SECS)
        self._upstream.close()
        if self._queue or self.dropped:
            log.warning("spans lost", extra={"requests": self.dropped + len(self._queue)})

    def _run(self) -> None:
        pause_secs = FLUSH_SECS
        while not (self._is_closing and not self._queue):
            self._wake.wait(pause_secs)
            self._wake.clear()
            if self._flush():
                pause_secs = FLUSH_SECS
            elif self._is_closing:
                return
            else:
                pause_secs = min(2 * pause_secs, PAUSE_SECS_MAX)
                gevent.sleep(0)

    def _flush(self) -> bool:
        """Send all that is waiting; False if the collector does not take it now."""
        queue = self._queue
        while queue:
            batch = [queue[number] for number in range(min(len(queue), BATCH_MAX))]
            if not self._send(batch):
                return False
            for _ in batch:
                queue.popleft()
        return True

    def _send(self, batch: Sequence[Outcome]) -> bool:
        """Send some; False if it is worth while to send them again."""
        try:
            body = orjson.dumps(export_request(self._spans(batch), self._service))
            with gevent.Timeout(EXPORT_SECS + 1):  # whatever it is that hangs
                status = self._post(body)
        except ProviderError as error:
            return self._fail(error.error_class)
        except gevent.Timeout:
            return self._fail("timeout")
        except Exception:  # a bug of ours in a span must not end all others
            self.dropped += len(batch)
            log.exception("spans cannot be told")
            return True
        if status in TRY_AGAIN:
            return self._fail(f"http_{status}")
        if status >= 300:
            self.dropped += len(batch)
            self._fail(f"http_{status}")
        elif not self._is_well:
            self._is_well = True
            log.info("spans are taken again", extra={"dropped": self.dropped})
        return True

    def _spans(self, batch: Sequence[Outcome]) -> list[Json]:
        spans: list[Json] = []
        for number, outcome in enumerate(batch):
            if number % AT_ONCE == AT_ONCE - 1:
                gevent.sleep(0)
            trace = outcome.trace
            if trace is None:
                continue
            spans.append(request_span(outcome, trace))
            for attempt in outcome.attempts:
                if attempt.span is not None:
                    asked = self._find(attempt.model_id, attempt.provider_id)
                    spans.append(attempt_span(outcome, trace, attempt, asked))
        return spans

    def _post(self, body: bytes) -> int:
        exchange = self._upstream.exchange(self._endpoint, self._headers, body, TIMEOUTS)
        _drain(exchange)
        return exchange.status

    def _fail(self, reason: str) -> bool:
        """Say so, once; always False."""
        if self._is_well:
            self._is_well = False
            log.warning("spans are not taken", extra={"reason": reason})
        return False


def find_tracer(settings: Settings, find: Find) -> Tracer | None:
    """The tracer that the settings ask for, if they do.

    Raises:
        ConfigError: the endpoint or a header cannot be one.
    """
    if not settings.otel_enabled:
        return None
    return Tracer(
        _endpoint_at(settings.otel_endpoint),
        headers=_header_lines(settings.otel_headers),
        service=settings.otel_service_name,
        ratio=settings.otel_sampling_ratio,
        find=find,
    )


def _endpoint_at(url: str) -> Endpoint:
    """Where spans are posted: a collector's base URL, with or without its path for traces, or
    `host:port` as the original takes it.

    Raises:
        ConfigError: it is none; repeats nothing of it.
    """
    text = url.strip().rstrip("/")
    if "://" not in text:
        text = f"http://{text}"
    if not text.endswith(TRACES_PATH):
        text += TRACES_PATH
    try:
        return endpoint_of("POST", text)
    except ValueError as error:
        raise ConfigError(f"TOKENHUB_OTEL_ENDPOINT: {error}") from None


def _header_lines(text: str) -> bytes:
    """`name=value,name=value` as header lines."""
    lines = b""
    for pair in filter(None, (each.strip() for each in text.split(","))):
        name, separator, value = pair.partition("=")
        try:
            if not separator or not name.strip().replace("-", "").isalnum():
                raise ValueError
            lines += header_line(name.strip().encode("ascii"), value.strip())
        except ValueError:
            raise ConfigError("TOKENHUB_OTEL_HEADERS: must be name=value,name=value") from None
    return lines


def _drain(exchange: Exchange) -> None:
    """Read the answer, whatever it says, so that the connection can be used again."""
    try:
        exchange.read_all(EXPORT_SECS)
    except ProviderError:
        exchange.close()  # the status says enough

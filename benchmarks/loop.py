"""A small event loop for the mock provider and the load driver.

Both share the cores with the gateway that is measured, so they must cost next to nothing: sockets
stay registered with epoll, and a readable socket is one function call. Knows nothing of HTTP.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from itertools import count


class Loop:
    """Calls back when a socket is ready or a time has come, in one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = count()  # keeps timers of the same time in order
        self._stopped = False

    def watch(self, fd: int, ready: Callable[[int], None]) -> None:
        """Call `ready(events)` whenever `fd` is readable."""
        self._ready[fd] = ready
        self._epoll.register(fd, select.EPOLLIN)

    def await_room(self, fd: int, *, wanted: bool) -> None:
        """Call back also when `fd` can be written to, or no longer."""
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def forget(self, fd: int) -> None:
        """Before `fd` is closed."""
        del self._ready[fd]
        self._epoll.unregister(fd)

    def at(self, when: float, due: Callable[[], None]) -> None:
        """Call `due()` once, when `time.monotonic()` reaches `when`."""
        heapq.heappush(self._timers, (when, next(self._serial), due))

    def stop(self) -> None:
        """Return from `run` after the callbacks of this turn."""
        self._stopped = True

    def run(self) -> None:
        """Until `stop` is called."""
        while not self._stopped:
            for fd, events in self._wait(self._fire_due()):
                ready = self._ready.get(fd)  # None: closed by a callback of this turn
                if ready is not None:
                    ready(events)
        self._epoll.close()

    def _fire_due(self) -> float | None:
        """Call what is due; seconds to the next timer, None without one."""
        timers = self._timers
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2]()
        if self._stopped:
            return 0.0
        return max(timers[0][0] - time.monotonic(), 0.0) if timers else None

    def _wait(self, secs: float | None) -> list[tuple[int, int]]:
        if secs is None:
            return self._epoll.poll()
        if secs > 0:
            # epoll rounds up to a millisecond, which would be most of a latency figure.
            select.select([self._epoll], [], [], secs)
        return self._epoll.poll(0)

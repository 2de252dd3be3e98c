"""The body of an answer that is told step by step, while several calls make it.

Whoever writes the steps finishes and settles the exchange before the last of them, so that nobody
has seen the end of an answer that a crash could still make us forget. Knows no dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Self

from tokenhub.errors import TokenHubError

Steps = Generator[bytes, None, None]


class Told:
    """Blocks of whole events for the caller, in order, and one ending.

    Args:
        steps: makes them; raises TokenHubError when there is no answer.
        say_error: the event that ends it then.
        on_end: called exactly once, with what it broke off with, if anything.
    """

    def __init__(
        self,
        steps: Steps,
        say_error: Callable[[TokenHubError], bytes],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._steps = steps
        self._say_error = say_error
        self._on_end = on_end
        self._is_over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._is_over:
            raise StopIteration
        try:
            return next(self._steps)
        except StopIteration:
            self._end(None)
            raise
        except TokenHubError as error:
            self._end(error)
            return self._say_error(error)
        except BaseException as error:
            self._end(error)
            raise

    def close(self) -> None:
        """The caller has gone, or has all of it. Calls that are under way are ended."""
        self._steps.close()
        self._end(GeneratorExit())

    def _end(self, error: BaseException | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_end(error)

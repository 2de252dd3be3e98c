"""What comes out of an orchestration: what each phase gave, how it went on, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from tokenhub.errors import TokenHubError
from tokenhub.gateway import Called

PhaseName = Literal["plan", "critique", "refine", "answer", "vote", "judge", "repair"]


class Answered(NamedTuple):
    """What one sub-request came to.

    Args:
        text: what the model said, without its thoughts.
        called: all of it, in the chat dialect, with who gave it and at what cost.
    """

    text: str
    called: Called

    @property
    def model_id(self) -> str:
        """Who gave it."""
        return self.called.model_id

    @property
    def completion(self) -> dict[str, Any]:
        """The completion as it came."""
        return self.called.answer.parsed

    @property
    def asks_for_tools(self) -> bool:
        """Whether it is not an answer yet: the caller has to run tools first."""
        message = _message(self.completion)
        return bool(message.get("tool_calls"))


class Progress(NamedTuple):
    """A phase begins, is over, or came to nothing.

    Args:
        number: which one of its kind, from 1.
        answered: what it came to; None unless it is done.
        error: why it came to nothing.
    """

    phase: PhaseName
    number: int
    status: Literal["started", "done", "failed"]
    model_id: str = ""
    answered: Answered | None = None
    error: TokenHubError | None = None


@dataclass(frozen=True)
class Result:
    """How an orchestration ended.

    Args:
        final: the answer that was chosen or written last.
        reason: as it is told in `routing_reason`.
        fields: what the mode tells (reference §15); {} = the completion itself.
        place: where in the fields the final text stands: an object and a name in it.
        error: the phase that failed did so with this, and what there was before is the result.
    """

    final: Answered
    reason: str
    fields: dict[str, Any] = field(default_factory=dict)
    place: tuple[dict[str, Any], str] | None = None
    error: TokenHubError | None = None

    def with_final(self, final: Answered) -> Result:
        """The same with another final answer, told where the first one was."""
        self.tell(final.text)
        return replace(self, final=final)

    def tell(self, text: str) -> None:
        """Put another final text where the first one was."""
        if self.place is not None:
            holder, name = self.place
            holder[name] = text


def _message(completion: dict[str, Any]) -> dict[str, Any]:
    choices = completion.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else {}


def text_of(completion: dict[str, Any]) -> str:
    """What the model said in its first choice."""
    content = _message(completion).get("content")
    return content if isinstance(content, str) else ""

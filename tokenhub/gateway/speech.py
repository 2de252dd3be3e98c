"""How a model is spoken to that has ways of its own: other names for tools, calls within its text.

Such a model is asked in the chat dialect, whatever the caller's is. Most models have none of this,
and nothing is done for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from tokenhub.dialects import DIALECTS
from tokenhub.dialects.gemma import GemmaStage, with_calls
from tokenhub.dialects.tool_names import (
    ToolNames,
    ToolNamesStage,
    tool_names_of,
    with_our_names,
    with_their_names,
)
from tokenhub.domain import ChatRequest, Model
from tokenhub.providers.base import Answer


@dataclass(frozen=True, slots=True)
class Speech:
    """How one request is put to one model, and its answer understood.

    Args:
        request: in the chat dialect, and the model's words.
        dropped: what the chat dialect cannot say of it.
        names: None = the model's names of tools are the caller's.
        is_gemma: the model writes thoughts and calls into its text.
    """

    request: ChatRequest
    dropped: tuple[str, ...]
    names: ToolNames | None
    is_gemma: bool

    def understand(self, answer: Answer) -> Answer:
        """A whole answer in the caller's words."""
        completion = answer.parsed
        if self.is_gemma:
            completion = with_calls(completion)
        if self.names is not None:
            completion = with_our_names(completion, self.names)
        dropped = self.dropped + answer.dropped
        if completion is answer.parsed:
            return replace(answer, dropped=dropped)
        body = orjson.dumps(completion)
        return replace(answer, body=body, parsed=completion, dropped=dropped)

    def stages(self) -> list[Callable[[bytes], bytes]]:
        """The same for a stream."""
        found: list[Callable[[bytes], bytes]] = []
        if self.is_gemma:
            found.append(GemmaStage().feed)
        if self.names is not None:
            found.append(ToolNamesStage(self.names).feed)
        return found


def find_speech(model: Model, request: ChatRequest) -> Speech | None:
    """How a model is to be spoken to; None = like any other.

    Raises:
        Untranslatable, InvalidRequest: the chat dialect cannot say what is asked for.
    """
    if not model.tool_name_map and not model.gemma4_output:
        return None
    asked, dropped = DIALECTS[request.dialect].to_chat(request)
    names = tool_names_of(model.tool_name_map, asked.body) if model.tool_name_map else None
    if names is not None:
        asked = with_their_names(asked, names)
    return Speech(asked, dropped, names, model.gemma4_output)

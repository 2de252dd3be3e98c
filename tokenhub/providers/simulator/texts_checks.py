"""What OpenAI refuses where it reads texts and not messages: completions and embeddings.

https://platform.openai.com/docs/api-reference/completions, …/embeddings. Fields are only looked at
when they are there; unknown ones pass, as vLLM takes many more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.openai_checks import (
    FIELDS,
    Check,
    check_fields,
    check_model,
    missing,
    ranged,
    wrong_type,
    wrong_value,
)

TEXTS_MAX = 2048
DIMENSIONS = 1536
"""Of every simulated vector, unless fewer are asked for."""
FORMATS = ("float", "base64")


def check_completion(body: dict[str, Any]) -> None:
    """Check a request for a completion; raises Refused."""
    check_model(body)
    _check_texts(body, "prompt", allows_empty=True)
    check_fields(body, COMPLETION_FIELDS)
    best_of, number = body.get("best_of"), body.get("n") or 1
    if best_of is not None and best_of < number:
        raise Refused(f"You requested that the server return more choices than it will generate "
                      f"(HINT: you must set 'n' (currently {number}) to be at most 'best_of' "
                      f"(currently {best_of}), or omit either parameter.")  # fmt: skip


def check_embeddings(body: dict[str, Any]) -> None:
    """Check a request for embeddings; raises Refused."""
    check_model(body)
    _check_texts(body, "input", allows_empty=False)
    check_fields(body, EMBEDDING_FIELDS)


def _check_texts(body: dict[str, Any], name: str, *, allows_empty: bool) -> None:
    texts = body.get(name)
    if texts is None:
        raise missing(name)
    if isinstance(texts, str):
        texts = [texts]
    is_list = isinstance(texts, list) and bool(texts)
    are_ids = is_list and all(_is_id(each) for each in texts)
    if not is_list or not (are_ids or all(_is_text(each) for each in texts)):
        raise Refused(f"'$.{name}' is invalid. Please check the API reference: "
                      "https://platform.openai.com/docs/api-reference.")  # fmt: skip
    if not allows_empty and "" in texts:
        raise Refused(f"Invalid '{name}': {name} cannot be an empty string.", param=name)
    if not are_ids and len(texts) > TEXTS_MAX:
        raise Refused(
            f"Invalid '{name}': array too long. Expected an array with maximum length {TEXTS_MAX}, "
            f"but got an array with length {len(texts)} instead.", param=name,
            openai_code="array_above_max_length",
        )  # fmt: skip


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_id(each) for each in value)
    return isinstance(value, str)


def _check_format(body: dict[str, Any], name: str) -> None:
    if body[name] not in FORMATS:
        raise wrong_value(name, body[name], FORMATS)


def _check_no_stream(body: dict[str, Any], name: str) -> None:
    raise Refused(f"Unrecognized request argument supplied: {name}")


def _check_best_of(body: dict[str, Any], name: str) -> None:
    ranged(1, 20, is_whole=True)(body, name)
    if (body[name] or 1) > 1 and body.get("stream"):
        raise Refused("Cannot stream results with best_of > 1.", param=name)


def _typed(kind: type, words: str) -> Check:
    def check(body: dict[str, Any], name: str) -> None:
        if body[name] is not None and not isinstance(body[name], kind):
            raise wrong_type(name, words, body[name])

    return check


COMPLETION_FIELDS: Mapping[str, Check] = {
    **{name: FIELDS[name] for name in ("temperature", "top_p", "n", "stop", "stream_options")},
    "max_tokens": ranged(0, None, is_whole=True),
    "logprobs": ranged(0, 5, is_whole=True),
    "best_of": _check_best_of,
    "presence_penalty": ranged(-2, 2),
    "frequency_penalty": ranged(-2, 2),
    "echo": _typed(bool, "a boolean"),
    "suffix": _typed(str, "a string"),
    "user": _typed(str, "a string"),
    "logit_bias": _typed(dict, "an object"),
}
EMBEDDING_FIELDS: Mapping[str, Check] = {
    "encoding_format": _check_format,
    "dimensions": ranged(1, DIMENSIONS, is_whole=True),
    "user": _typed(str, "a string"),
    "stream": _check_no_stream,
}

"""Commands that do as a client does: ask a model one question, judge an answer."""

from __future__ import annotations

import time
from typing import Any

import click

from tokenhub.ctl.client import Failed, parse
from tokenhub.ctl.common import Answer, answering, client, read_secret, tell
from tokenhub.ctl.show import cell, clean, duration, pairs, short

TOKENS_MAX = 5
TRIAL_SECS = 120.0
TEXT_CHARS = 500


@click.command("model-test")
@click.argument("model")
@click.argument("api_key", required=False, metavar="[API-KEY]")
@click.option("--json", "is_json", is_flag=True, help="The answer as JSON, as it came.")
def model_test(model: str, api_key: str | None, is_json: bool) -> None:
    """Ask MODEL for a few words; exit 1 if it does not answer.

    The key is API-KEY (- reads it), else TOKENHUB_API_KEY. The admin token is none of them.
    """
    asking = client()
    key = read_secret(api_key, "API key") if api_key else asking.config.api_key
    if not key:
        raise Failed("an API key is needed: set TOKENHUB_API_KEY, or give one")
    asking.keep_secret(key)
    messages = [{"role": "user", "content": "Say hello."}]
    body = {"model": model, "messages": messages, "max_tokens": TOKENS_MAX}
    began = time.monotonic()
    response = asking.send("POST", "/v1/chat/completions", body=body, token=key, timeout=TRIAL_SECS)
    said, ms = parse(response), (time.monotonic() - began) * 1000
    lines = [("Model", model), ("Status", response.status_code), ("Latency", duration(ms))]
    if response.status_code < 300:
        lines += _answered(said)
    tell(Answer(said, pairs(lines)), is_json=is_json)
    asking.check(response)


def _answered(said: Any) -> list[tuple[str, object]]:
    try:
        message = said["choices"][0]["message"]
        usage = said.get("usage") or {}
    except (TypeError, LookupError, AttributeError):
        raise Failed("the answer is not a chat completion") from None
    word = "Response" if message.get("content") else "Reasoning"
    text = message.get("content") or message.get("reasoning_content")
    counts = f"{cell(usage.get('prompt_tokens'))} in, {cell(usage.get('completion_tokens'))} out"
    return [
        (word, short(text, TEXT_CHARS)), ("Tokens", counts), ("Model used", clean(said["model"])),
    ]  # fmt: skip


@click.command("feedback")
@click.argument("request_id")
@click.argument("opinion", metavar="SCORE|LABEL")
@answering
def feedback(request_id: str, opinion: str) -> Answer:
    """Say what an answer was worth: from 0 to 1, or good, neutral, bad."""
    body: dict[str, object] = {"request_id": request_id}
    try:
        body["score"] = float(opinion)
    except ValueError:
        body["label"] = opinion
    asking = client()
    response = asking.send("POST", "/v1/feedback", body=body)
    asking.check(response)
    return Answer(parse(response), f"Noted for {clean(request_id)}")


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [(model_test, ()), (feedback, ())]

"""docs/translation.md names every field and word that the translation to Anthropic knows."""

import re
from pathlib import Path

import pytest

from tokenhub.dialects.anthropic.answers import FINISH_REASONS
from tokenhub.dialects.anthropic.requests import DROPPED, REFUSED, TIERS, TRANSLATED
from tokenhub.dialects.anthropic.thinking import BUDGETS
from tokenhub.dialects.completions import REFUSED as COMPLETIONS_REFUSED
from tokenhub.dialects.completions import TRANSLATED as COMPLETIONS_TRANSLATED
from tokenhub.dialects.messages.answers import STOP_REASONS
from tokenhub.dialects.messages.content import FILENAME
from tokenhub.dialects.messages.to_chat import DROPPED as MESSAGES_DROPPED
from tokenhub.dialects.messages.to_chat import REFUSED as MESSAGES_REFUSED
from tokenhub.dialects.messages.to_chat import TRANSLATED as MESSAGES_TRANSLATED
from tokenhub.dialects.messages.to_chat import USER_CHARS_MAX
from tokenhub.dialects.messages.turns import ATTACHED, FAILED
from tokenhub.dialects.responses.to_chat import DROPPED as RESPONSES_DROPPED
from tokenhub.dialects.responses.to_chat import REFUSED as RESPONSES_REFUSED
from tokenhub.dialects.responses.to_chat import TRANSLATED as RESPONSES_TRANSLATED

TEXT = (Path(__file__).parents[2] / "docs" / "translation.md").read_text()


def fields_that_are(word: str) -> set[str]:
    """The fields of the first table whose row begins to say `word`."""
    table = TEXT.partition("\n## The request\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", table, re.MULTILINE)
    found = {name for names, said in rows if said.startswith(word)
             for name in re.findall(r"`(\w+)`", names)}  # fmt: skip
    assert found
    return found


def test_the_first_table_has_every_field_once_and_no_other():
    refused, dropped = fields_that_are("refused"), fields_that_are("dropped")
    assert refused == set(REFUSED)
    assert dropped == set(DROPPED)
    assert fields_that_are("") - refused - dropped == set(TRANSLATED)


@pytest.mark.parametrize("words", [set(FINISH_REASONS), set(TIERS) - {"standard_only"}])
def test_the_words_of_both_dialects_are_explained(words):
    assert {word for word in words if f"`{word}`" not in TEXT} == set()


@pytest.mark.parametrize("said", [f"`{word}` {BUDGETS[word]}" for word in BUDGETS])
def test_what_we_set_ourselves_is_told_as_it_is(said):
    assert said in TEXT


def test_the_table_of_completions_has_every_field_once_and_no_other():
    section = TEXT.partition("\n## Completions\n")[2].partition("\n| of the chat ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", section, re.MULTILINE)
    said = [(name, what) for names, what in rows for name in re.findall(r"`(\w+)`", names)]
    assert len(dict(said)) == len(said)
    refused = {name for name, what in said if what.startswith("refused")}
    assert refused == set(COMPLETIONS_REFUSED)
    assert {name for name, _ in said} - refused == set(COMPLETIONS_TRANSLATED)


def test_the_table_of_responses_has_every_field_once_and_no_other():
    section = TEXT.partition("\n## Responses\n")[2].partition("\n| item or part ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", section, re.MULTILINE)
    said = [(name, what) for names, what in rows for name in re.findall(r"`(\w+)`", names)]
    assert len(dict(said)) == len(said)
    assert {n for n, what in said if what.startswith("refused")} == set(RESPONSES_REFUSED)
    assert {n for n, what in said if what.startswith("dropped")} == set(RESPONSES_DROPPED)
    told = RESPONSES_REFUSED | RESPONSES_DROPPED.keys() | RESPONSES_TRANSLATED
    assert {n for n, _ in said} == told


def test_the_table_of_messages_has_every_field_once_and_no_other():
    section = TEXT.partition("\n## Requests to /v1/messages\n")[2]
    section = section.partition("\n| block or turn ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", section, re.MULTILINE)
    said = [(name, what) for names, what in rows for name in re.findall(r"`(\w+)`", names)]
    assert len(dict(said)) == len(said)
    assert {n for n, what in said if what.startswith("refused")} == set(MESSAGES_REFUSED)
    assert {n for n, what in said if what.startswith("dropped")} == set(MESSAGES_DROPPED)
    told = MESSAGES_REFUSED.keys() | MESSAGES_DROPPED.keys() | MESSAGES_TRANSLATED
    assert {n for n, _ in said} == told


@pytest.mark.parametrize("said", [
    *(f"`{heard}` → `{said}`" for heard, said in STOP_REASONS.items() if heard != "content_filter"),
    f"says `{FAILED}`", f"`{ATTACHED}`", f"`{FILENAME}`", f"over {USER_CHARS_MAX} characters",
    f"`low` below {BUDGETS['medium']} tokens, `medium` below {BUDGETS['high']}",
])  # fmt: skip
def test_what_we_say_in_a_chat_is_told_as_it_is(said):
    section = TEXT.partition("\n## Requests to /v1/messages\n")[2]
    assert said in " ".join(section.split())

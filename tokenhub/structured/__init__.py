"""Answers that keep to a JSON schema: how it is read, asked for, checked, and asked for again.

JSON Schema draft 2020-12, https://json-schema.org/draft/2020-12. Pure: whoever asks a model is
handed in. Streams: `dialects/checked.py`.
"""

from tokenhub.structured.asking import (
    answer_with_schema,
    mend,
    repair,
    schema_of,
    unmet,
    with_instruction,
    with_schema,
)
from tokenhub.structured.checking import check
from tokenhub.structured.schema import Schema, read_schema

__all__ = [
    "Schema",
    "answer_with_schema",
    "check",
    "mend",
    "read_schema",
    "repair",
    "schema_of",
    "unmet",
    "with_instruction",
    "with_schema",
]

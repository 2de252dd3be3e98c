"""An answer in the shape that was asked for: JSON, Markdown, plain text, without thoughts.

Pure, and knows no events: `dialects/shaped.py` puts streams through the same filters.
"""

from tokenhub.shaping.filters import Filter, Filters, Held, Trimmed, held_from, pieces
from tokenhub.shaping.json_text import find_json
from tokenhub.shaping.output import THOUGHTS, WHOLE, OutputFormat, filters_of, read_format, shape

__all__ = [
    "THOUGHTS",
    "WHOLE",
    "Filter",
    "Filters",
    "Held",
    "OutputFormat",
    "Trimmed",
    "filters_of",
    "find_json",
    "held_from",
    "pieces",
    "read_format",
    "shape",
]

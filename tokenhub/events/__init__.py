"""What happens, told to all who want to know: on any worker, of all workers and hosts.

Requests are told of by their log rows, changes of the catalog by its change log, and all else by
events that are published through the journal. Streams follow these tables, so what is told is what
is stored, and can be told again. Knows nothing of HTTP.
"""

from tokenhub.events.feed import Feed, Listener, Wants
from tokenhub.events.publishing import Events, fields_text
from tokenhub.events.reading import Item, Reader, frame_of
from tokenhub.events.shapes import KeyNames
from tokenhub.events.words import CONFIG_CHANGE, HEARTBEAT, TYPES

__all__ = [
    "CONFIG_CHANGE", "HEARTBEAT", "TYPES", "Events", "Feed", "Item", "KeyNames", "Listener",
    "Reader", "Wants", "fields_text", "frame_of",
]  # fmt: skip

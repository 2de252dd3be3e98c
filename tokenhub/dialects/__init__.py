"""The dialects that callers may speak, by their names."""

from collections.abc import Mapping

from tokenhub.dialects.chat import CHAT
from tokenhub.dialects.completions import COMPLETIONS
from tokenhub.dialects.dialect import Dialect
from tokenhub.dialects.embeddings import EMBEDDINGS
from tokenhub.dialects.messages import MESSAGES
from tokenhub.dialects.responses import RESPONSES
from tokenhub.domain import Dialect as DialectName

DIALECTS: Mapping[DialectName, Dialect] = {
    "chat": CHAT,
    "completions": COMPLETIONS,
    "embeddings": EMBEDDINGS,
    "messages": MESSAGES,
    "responses": RESPONSES,
}

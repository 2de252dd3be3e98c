"""The host's shared memory: what the workers of one arbiter must agree on between two commits.

The arbiter makes one `Board` before it forks; every worker sees the same words. Nothing here is
durable and nothing is secret: what must survive is in the journal or the database, and the vault's
key has memory of its own. Knows nothing of HTTP, of SQL or of what the counters mean.
"""

from tokenhub.board.board import Board
from tokenhub.board.counters import Counters
from tokenhub.board.endpoints import Endpoints
from tokenhub.board.rates import Rates
from tokenhub.board.vitals import Vitals

__all__ = ["Board", "Counters", "Endpoints", "Rates", "Vitals"]

"""One answer out of several requests to models: plans that are reviewed, votes, refinements."""

from tokenhub.orchestrate.answers import Answered, Progress, Result
from tokenhub.orchestrate.calls import Calls
from tokenhub.orchestrate.orchestration import Orchestration, read_orchestration
from tokenhub.orchestrate.run import run

__all__ = [
    "Answered",
    "Calls",
    "Orchestration",
    "Progress",
    "Result",
    "read_orchestration",
    "run",
]

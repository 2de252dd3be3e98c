"""What operators read: JSON log lines and Prometheus metrics.

Knows the board and no part that works: what else a metric needs is handed in.
"""

from tokenhub.telemetry.logs import LEVELS, JsonFormatter, LogLevel, configure_logging
from tokenhub.telemetry.metrics import BoardCollector, Facts

__all__ = ["LEVELS", "BoardCollector", "Facts", "JsonFormatter", "LogLevel", "configure_logging"]

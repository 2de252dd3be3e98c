"""`python -m tokenhub.ctl`, and the script `tokenhubctl`. Alone here in reading the environment."""

from __future__ import annotations

import os
import sys

from tokenhub.ctl import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ))

"""`tokenhubctl`: the command line for those who operate a gateway from anywhere.

It speaks HTTP only and knows the admin API by its paths and fields; of the server it imports
nothing. `main` is the click tree, `run` what a process calls.
"""

from tokenhub.ctl.tree import main, run

__all__ = ["main", "run"]

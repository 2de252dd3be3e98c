"""`python -m tokenhub`: see `tokenhub.cli`."""

from tokenhub.cli import main

main(prog_name="python -m tokenhub")

"""What operators look at, out of what is stored: how things stand, and what needs them.

Each view is read in one transaction, from sums, books and rows that all hosts write, so it is the
same whichever worker of whichever host is asked. Knows no HTTP, and never reads the request log.
"""

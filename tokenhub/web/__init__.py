"""HTTP in and out: the only layer that knows Flask."""

"""How many requests and tokens fit into a window, as pure arithmetic."""

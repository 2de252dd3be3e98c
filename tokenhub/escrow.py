"""Money set aside for requests: from this host's share, or from the database."""

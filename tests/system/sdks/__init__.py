"""Official SDKs and an agent framework before providers of all three types."""

"""TokenHub: one address in front of many language-model providers."""

__version__ = "0.3.0"

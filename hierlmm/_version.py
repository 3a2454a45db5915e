"""The version, in its only place but for CITATION.cff."""

__version__ = "0.1.0"

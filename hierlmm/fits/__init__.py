"""Frozen results and what can be asked of them."""

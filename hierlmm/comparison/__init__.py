"""Fits side by side: one table, and against estimating equations."""

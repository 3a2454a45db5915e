"""Marks on an axis from tables and arrays, never from fits."""

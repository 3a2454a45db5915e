"""What was not measured: rows and visits, whether dropping out depends on the past, and what if it depends on more."""

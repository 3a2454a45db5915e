"""Can the fit be believed? Checks of every kind, ordered by severity, and what single subjects do to it."""

"""What the user said, as data; response, X, Z, subjects and names; the same for new data."""

"""What a fit says about subjects, and what it says in plain words."""

"""The model in symbols and words."""

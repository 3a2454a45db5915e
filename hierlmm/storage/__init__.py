"""A record of an estimator to disk and back: its numbers as arrays, what the model says as text, nothing pickled."""

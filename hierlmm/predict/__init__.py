"""Predictions of every kind of fit: which line, how uncertain, and what an interval contains.

`rows` says what is predicted (levels) and what a table of predictions holds in words, `lines` has the algebra that fits
share, `residual` is where level-1 errors enter, `history` reads the measurements of new subjects, `dynamic` conditions
on them; `likelihood` and `posterior` stand above and answer for their fits.
"""

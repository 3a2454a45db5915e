"""Predictions of every kind of fit: which line, how uncertain, and what an interval contains.

`rows` says what is predicted (levels), `lines` has the algebra that fits share, `residual` is where level-1
errors enter, `likelihood` and `posterior` answer for their fits, `history` and `dynamic` predict a new subject from its
first measurements. The methods of fits call these functions.
"""

"""The teaching app, ``hierlmm app``: rooms with sliders in the browser, on this machine only.

A room (``hierarchy.py``, ``study.py``, ...) is numbers from settings and a page of these numbers, both plain functions
that need no browser; ``page.py`` and ``server.py`` put the rooms into Shiny, ``serve.py`` opens the port.
"""

"""Numbers of one fit, frozen; the verbs that hand them to the rooms above are in `hierlmm.fit`."""

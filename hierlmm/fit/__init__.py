"""What a user can ask of a fit: the numbers of `hierlmm.fits` with verbs that hand them to the rooms above."""

"""What the fixed effects say: marginal means, contrasts, slopes, linear hypotheses, and their uncertainty."""

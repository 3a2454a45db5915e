"""Covariance families: of the random effects (D), of the residual correlation (R_i) and of the residual variance (G_i).

    V_i = Z_i D Z_i' + Σ_i,     D = σ² Λ Λ',     Σ_i = σ² G_i R_i G_i

What a structure is, is said on its class; the likelihood asks it, and tests for no name of a residual structure.
"""

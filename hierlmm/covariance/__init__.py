"""Covariance families: of the random effects (D), of the residual correlation (R_i) and of the residual variance (G_i).

    V_i = Z_i D Z_i' + Σ_i,     D = σ² Λ Λ',     Σ_i = σ² G_i R_i G_i

No family knows the likelihood, and the likelihood knows no family.
"""

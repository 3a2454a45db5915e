"""The one Gaussian likelihood: cross-products, kernel, criterion, maximisation, and b given y."""

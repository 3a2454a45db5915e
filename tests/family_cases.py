"""Every family with every link that it has."""

from hierlmm.families.names import FAMILIES

CASES = [(name, link) for name, kind in FAMILIES.items() for link in kind.links]

"""Response distributions with their links; a family is one small class."""

from hierlmm.families.binary import Bernoulli as Bernoulli
from hierlmm.families.binary import Binomial as Binomial
from hierlmm.families.counts import NegativeBinomial as NegativeBinomial
from hierlmm.families.counts import Poisson as Poisson
from hierlmm.families.family import Family as Family
from hierlmm.families.gaussian import Gaussian as Gaussian
from hierlmm.families.heavy_tails import StudentT as StudentT
from hierlmm.families.ordinal import Ordinal as Ordinal
from hierlmm.families.positive import Gamma as Gamma
from hierlmm.families.proportions import Beta as Beta

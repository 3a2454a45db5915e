"""What every fit can be asked: the verbs of `effects`, `subjects`, `plots`, `pictures`, and a comparison with GEE."""

from __future__ import annotations

from hierlmm.fit.effects import EffectVerbs
from hierlmm.fit.pictures import DataPictures
from hierlmm.fit.plots import PlotVerbs
from hierlmm.fit.subjects import SubjectVerbs
from hierlmm.options import checked


@checked
class Verbs(EffectVerbs, SubjectVerbs, PlotVerbs, DataPictures):
    """The verbs of every fit; each imports its room when it is called and hands the fit over."""

"""A small driving world in nuScenes format, made by ray casting: a data set, not a mock."""

from dualdistill.synthetic.config import BENCH, DEMO, TINY, SyntheticConfig
from dualdistill.synthetic.write import make_synthetic

__all__ = ["BENCH", "DEMO", "TINY", "SyntheticConfig", "make_synthetic"]

"""What measurements are worth: baselines, noise, fitness, pruning, and the archive of candidates."""

from asi_lab.scoring.archive import Archive
from asi_lab.scoring.baselines import Baselines
from asi_lab.scoring.fitness import score

__all__ = ["Archive", "Baselines", "score"]

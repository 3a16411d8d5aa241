"""What a lab directory holds, and how it survives a kill: configuration, store, lineage, orders."""

from asi_lab.lab.directory import Lab, run_label, trial_label
from asi_lab.lab.lineage import Lineage
from asi_lab.lab.store import Store

__all__ = ["Lab", "Lineage", "Store", "run_label", "trial_label"]

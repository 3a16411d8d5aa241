"""A candidate checked, trained, measured and repaired: from contract to evidence. No torch is imported here;
what runs inside a trial is `asi_lab.trial`."""

from asi_lab.engineer.engineer import Engineer
from asi_lab.engineer.slots import Slots
from asi_lab.engineer.trials import Trials

__all__ = ["Engineer", "Slots", "Trials"]

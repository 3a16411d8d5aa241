"""What a candidate was worth, and why: the judge's mark, the measured table, the analyst's prose, tags."""

from asi_lab.analyst.analyst import Analyst

__all__ = ["Analyst"]

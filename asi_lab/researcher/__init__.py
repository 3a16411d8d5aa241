"""What is tried next: the pool and the draw, the planner and the grammar, and whether an idea is new."""

from asi_lab.researcher.researcher import Researcher

__all__ = ["Researcher"]

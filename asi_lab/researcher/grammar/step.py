"""The difference between two genomes as a list of steps, and the steps in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from asi_lab.researcher.grammar.genome import GENES, Genome, Value, canonical, in_use
from asi_lab.researcher.grammar.naming import GENE_NAMES, value_name

NUMBERS = frozenset({"qk_conv", "v_conv", "short_fir", "long_fir", "floor_percent", "entropy_permille"})
"""Genes whose values are numbers, so that a step has a direction."""

DETAILS = frozenset({"router_input", "floor_percent", "gate_scope"})
"""Genes that only say how another mechanism works, and go unmentioned when that one goes."""


class Step(NamedTuple):
    """One gene that changes. A side is None where the gene has no effect."""

    gene: str
    old: Value | None
    new: Value | None

    @property
    def direction(self) -> str:
        """How a number moves: `add`, `remove`, `widen` or `narrow`."""
        old, new = int(self.old or 0), int(self.new or 0)
        if not new:
            return "remove"
        if not old:
            return "add"
        return "widen" if new > old else "narrow"

    @property
    def note(self) -> str:
        """The step in a few words: `decay none -> data-dependent`, `+long FIR 31`."""
        name = GENE_NAMES[self.gene]
        if self.new is None or is_off(self.new):
            return f"-{name}"
        new = value_name(self.gene, self.new)
        if self.old is None or is_off(self.old):
            return f"+{name} {new}".rstrip()
        return f"{name} {value_name(self.gene, self.old)} -> {new}"

    @property
    def phrase(self) -> str:
        """The step as a clause: `changes the decay from none to data-dependent`."""
        name = GENE_NAMES[self.gene]
        in_tokens = self.gene.endswith(("conv", "fir"))
        unit = "-token " if in_tokens else " "
        if self.new is None or is_off(self.new):
            old = value_name(self.gene, self.old) + unit if in_tokens and self.old else ""
            return f"drops the {old}{name}"
        if self.new is True:
            return f"adds the {name}"
        new = value_name(self.gene, self.new)
        if self.old is None:
            return f"sets the {name} to {new}"
        if is_off(self.old):
            return f"adds a {new}{unit}{name}"
        return f"changes the {name} from {value_name(self.gene, self.old)} to {new}{' tokens' * in_tokens}"


def steps(old: Genome, new: Genome) -> tuple[Step, ...]:
    """What it takes to get from one genome to another, in field order.

    A gene that comes into use is a step unless its value means absence; one that falls out of use
    is a step only where something present disappears with it.
    """
    old, new = canonical(old), canonical(new)
    before, after = in_use(old), in_use(new)
    found = []
    for gene in GENES:
        was: Value | None = getattr(old, gene) if gene in before else None
        now: Value | None = getattr(new, gene) if gene in after else None
        silent = _means_nothing(gene, now) and (_means_nothing(gene, was) or gene in DETAILS)
        if was != now and not silent:
            found.append(Step(gene, was, now))
    return tuple(found)


def change_note(old: Genome, new: Genome) -> str:
    """The difference in a few words: `decay none -> data-dependent; +long FIR 31`."""
    return "; ".join(step.note for step in steps(old, new))


def inherited(taken: Iterable[Step], mate: Genome) -> tuple[Step, ...]:
    """Those of the steps that lead to a value of `mate`, or drop what the child has no use for."""
    form = canonical(mate)
    return tuple(step for step in taken if step.new is None or step.new == getattr(form, step.gene))


def is_off(value: Value) -> bool:
    """Whether a number or switch means absence."""
    return isinstance(value, int) and not value


def _means_nothing(gene: str, value: Value | None) -> bool:
    return value is None or is_off(value) or value == "none" or (gene, value) == ("temperature", "fixed")

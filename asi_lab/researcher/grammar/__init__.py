"""The grammar researcher, the control arm and the default where there is no language model.

    Genome  ->  mutate / recombine  ->  Genome  ->  render  ->  architecture.py
                                                ->  motivate -> the reasons, in words

`propose` is the whole of it. Everything is deterministic in its arguments and the state of `rng`.
"""

from asi_lab.researcher.grammar.genome import (
    Genome,
    canonical,
    count_valid,
    gated_delta_net_genome,
    is_valid,
    seed_genome,
)
from asi_lab.researcher.grammar.mutate import mutate, recombine
from asi_lab.researcher.grammar.propose import propose, read_genome
from asi_lab.researcher.grammar.render import render
from asi_lab.researcher.grammar.step import change_note

__all__ = [
    "Genome",
    "canonical",
    "change_note",
    "count_valid",
    "gated_delta_net_genome",
    "is_valid",
    "mutate",
    "propose",
    "read_genome",
    "recombine",
    "render",
    "seed_genome",
]

"""The grammar researcher: proposes a child of the drawn parent without a language model."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from asi_lab.records import SEED_ID, Candidate, Proposal
from asi_lab.researcher.grammar.genome import Genome, canonical, is_valid, seed_genome
from asi_lab.researcher.grammar.motivation import motivate
from asi_lab.researcher.grammar.mutate import mutate, recombine
from asi_lab.researcher.grammar.naming import architecture_name
from asi_lab.researcher.grammar.render import render
from asi_lab.researcher.grammar.step import change_note, steps

RESEARCHER = "grammar"

RECOMBINATION = 0.4
"""Share of proposals that cross the parent with a reference, where one has a genome."""


def propose(
    parent: Candidate, references: Sequence[Candidate], rng: random.Random, mutations: int = 1
) -> Proposal:
    """A child of `parent`, by so many mutations or by recombination with one of `references`.

    A parent without a genome (written by a language model, say) is replaced by the seed's genome,
    and the motivation says so. All randomness is drawn from `rng`. `code_hash` is left to the caller.
    """
    own = read_genome(parent)
    start = own or seed_genome()
    mates = [(candidate, genome) for candidate in references if (genome := read_genome(candidate))]
    avoid = {seed_genome(), *(genome for _, genome in mates)}
    child, mate = None, None
    if mates and rng.random() < RECOMBINATION:
        mate = rng.choice(mates)
        child = recombine(start, mate[1], rng, avoid)
    if child is None:
        mate, child = None, start
        for _ in range(mutations):
            child = mutate(child, rng, {*avoid, start})
    name = architecture_name(child, [step.gene for step in steps(start, child)])
    return Proposal(
        name=name,
        motivation=motivate(parent, start, child, inherits=own is not None, mate=mate),
        change=change_note(start, child),
        code=render(child, name),
        researcher=RESEARCHER,
        genome=msgspec.to_builtins(child),
    )


def read_genome(candidate: Candidate) -> Genome | None:
    """The candidate's genome in canonical form; None where it has none that this grammar knows.

    The seed needs no record: its genome is known.
    """
    raw = candidate.proposal.genome if candidate.proposal else None
    if raw is None:
        return seed_genome() if candidate.id == SEED_ID else None
    try:
        genome = msgspec.convert(raw, Genome)
    except msgspec.ValidationError:
        return None
    return None if is_valid(genome) else canonical(genome)

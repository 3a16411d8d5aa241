"""The grammar researcher: proposes a child of the drawn parent without a language model."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from asi_lab.records import SEED_ID, Candidate, Cognition, Proposal
from asi_lab.researcher.grammar.genome import Genome, canonical, is_valid, seed_genome
from asi_lab.researcher.grammar.motivation import motivate
from asi_lab.researcher.grammar.mutate import Hint, lean, mutate, recombine
from asi_lab.researcher.grammar.naming import architecture_name
from asi_lab.researcher.grammar.render import render
from asi_lab.researcher.grammar.step import change_note, steps

RESEARCHER = "grammar"

RECOMBINATION = 0.4
"""Share of proposals that cross the parent with a reference, where one has a genome."""


LEAN = 0.5
"""Share of proposals that take a step towards an insight that was retrieved, where one has hints."""


def propose(
    parent: Candidate,
    references: Sequence[Candidate],
    rng: random.Random,
    mutations: int = 1,
    leads: Sequence[tuple[Cognition, Hint]] = (),
) -> Proposal:
    """A child of `parent`, by `mutations` mutations, by recombination with one of `references`, or by a step
    towards one of `leads`, insights for its weaknesses with the genes that express them.

    A parent without a genome (written by a language model, say) is replaced by the seed's genome,
    and the motivation says so. All randomness is drawn from `rng`. `code_hash` is left to the caller.
    """
    own = read_genome(parent)
    start = own or seed_genome()
    mates = [(candidate, genome) for candidate in references if (genome := read_genome(candidate))]
    avoid = {seed_genome(), *(genome for _, genome in mates)}
    child, mate, led = None, None, None
    if (
        leads
        and rng.random() < LEAN
        and (step := lean(start, [hint for _, hint in leads], rng, {*avoid, start}))
    ):
        led, child = leads[step[0]][0], step[1]
    if child is None and mates and rng.random() < RECOMBINATION:
        mate = rng.choice(mates)
        child = recombine(start, mate[1], rng, avoid)
    if child is None:
        mate, child = None, start
        for _ in range(mutations):
            child = mutate(child, rng, {*avoid, start})
    name = architecture_name(child, [step.gene for step in steps(start, child)])
    motivation = motivate(parent, start, child, inherits=own is not None, mate=mate)
    if led is not None:
        motivation += f" It leans to {led.key} ({led.insight}), retrieved for: {led.weakness}."
    return Proposal(
        name=name,
        motivation=motivation,
        change=change_note(start, child),
        code=render(child, name),
        researcher=RESEARCHER,
        genome=msgspec.to_builtins(child),
        cognitions=() if led is None else (led,),
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

"""Writes the motivation of a child: which parent, which change, why, at what cost, what to expect."""

from __future__ import annotations

from collections.abc import Sequence

from asi_lab.records import Candidate
from asi_lab.researcher.grammar.argument import Argument
from asi_lab.researcher.grammar.arguments_memory import CONVOLUTIONS, FEATURES, MEMORY
from asi_lab.researcher.grammar.arguments_mixture import OUTPUT, PATHS, ROUTING
from asi_lab.researcher.grammar.genome import Genome, canonical, in_use
from asi_lab.researcher.grammar.naming import GENE_NAMES, ORDER, value_name
from asi_lab.researcher.grammar.step import NUMBERS, Step, inherited, is_off, steps

ARGUMENTS = {**MEMORY, **FEATURES, **CONVOLUTIONS, **PATHS, **ROUTING, **OUTPUT}

MIN_WORDS = 80
MAX_WORDS = 200
FEWEST_KEPT, MOST_KEPT = 2, 8
"""Unchanged mechanisms named at the end; more than the most only where the text is too short."""


def motivate(
    parent: Candidate,
    start: Genome,
    child: Genome,
    *,
    inherits: bool = True,
    mate: tuple[Candidate, Genome] | None = None,
) -> str:
    """The motivation of `child`, one paragraph of 80 to 200 words.

    `start` is the genome that was changed: the parent's own, or the seed's when the parent has
    none (`inherits` False). `mate` is the reference whose genes were taken in a recombination.
    """
    taken = steps(start, child)
    opening = _opening(parent, taken, inherits) if mate is None else _crossing(parent, taken, inherits, mate)
    kept = _kept(start, child, taken)
    room = MAX_WORDS - _words(opening) - _words(_closing(kept[:FEWEST_KEPT]))
    body = " ".join([opening, *_reasons(taken, room)])
    text = f"{body} {_closing(kept[:FEWEST_KEPT])}"
    for count in range(FEWEST_KEPT + 1, len(kept) + 1):
        longer = f"{body} {_closing(kept[:count])}"
        if _words(longer) > MAX_WORDS or (count > MOST_KEPT and _words(text) >= MIN_WORDS):
            break
        text = longer
    return text


def argument(step: Step) -> Argument | None:
    """The argument for a step; None where a gene only follows from another one."""
    if step.new is None or (step.gene == "floor_percent" and step.old is None):
        return None
    if step.gene not in NUMBERS:
        return ARGUMENTS[step.gene, step.new]
    values = {
        "old": value_name(step.gene, step.old or 0).removesuffix(" %"),
        "new": value_name(step.gene, step.new).removesuffix(" %"),
    }
    return Argument(*(text.format(**values) for text in ARGUMENTS[step.gene, step.direction]))


def _opening(parent: Candidate, taken: Sequence[Step], inherits: bool) -> str:
    if inherits:
        return f"Starting from {_label(parent)}, this architecture {_clauses(taken)}."
    return (
        f"The parent {_label(parent)} carries no genome that the grammar can read, so its code is not used: "
        f"starting from the seed DeltaNet, this architecture {_clauses(taken)}."
    )


def _crossing(
    parent: Candidate, taken: Sequence[Step], inherits: bool, mate: tuple[Candidate, Genome]
) -> str:
    reference, genome = mate
    given = inherited(taken, genome)
    added = [step for step in taken if step not in given]
    start = _label(parent) if inherits else "the seed DeltaNet"
    text = f"A cross of {start} with {_label(reference)}: following the latter, it {_clauses(given)}."
    if added:
        text += f" To make the combination sound it also {_clauses(added)}."
    if not inherits:
        text = f"The parent {_label(parent)} carries no readable genome and its code is not used. {text}"
    return text


def _reasons(taken: Sequence[Step], room: int) -> list[str]:
    """As many sentences as fit: the main step in full, then reasons, expectations, costs of others."""
    ranked = sorted(taken, key=lambda step: ORDER[step.gene])
    arguments = [found for step in ranked if (found := argument(step))]
    order = [(0, 0), (0, 2), *((i, 0) for i in range(1, len(arguments))), (0, 1)]
    order += [(i, part) for i in range(1, len(arguments)) for part in (2, 1)]
    chosen = set()
    for index, part in order[: 3 * len(arguments)]:
        words = _words(arguments[index][part])
        if words <= room:
            room -= words
            chosen.add((index, part))
    return [arguments[index][part] for index, part in sorted(chosen)]


def _kept(start: Genome, child: Genome, taken: Sequence[Step]) -> list[str]:
    """The mechanisms that the change leaves alone, the most telling first."""
    form, changed = canonical(child), {step.gene for step in taken}
    genes = sorted((in_use(start) & in_use(child)) - changed, key=ORDER.__getitem__)
    values = ((gene, getattr(form, gene)) for gene in genes)
    return [
        f"{GENE_NAMES[gene]} {value_name(gene, value)}".strip() for gene, value in values if not is_off(value)
    ]


def _closing(kept: Sequence[str]) -> str:
    return f"Kept as they were: {', '.join(kept)}."


def _clauses(taken: Sequence[Step]) -> str:
    clauses = [step.phrase for step in taken]
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"


def _label(candidate: Candidate) -> str:
    return f"{candidate.name if candidate.proposal else 'the seed'} (candidate {candidate.id})"


def _words(text: str) -> int:
    return len(text.split())

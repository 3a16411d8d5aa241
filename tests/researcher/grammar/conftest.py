import random

import pytest

from asi_lab.records import Candidate, CandidateState, Proposal
from asi_lab.researcher.grammar import Genome, canonical, is_valid
from asi_lab.researcher.grammar.genome import GENES


def draw_genomes(count: int, seed: int) -> list[Genome]:
    """Distinct valid canonical genomes, uniform over the alphabets before rejection."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        genome = Genome(**{gene: rng.choice(values) for gene, values in GENES.items()})
        if is_valid(genome) is None:
            found[canonical(genome)] = None
    return list(found)


def make_candidate(number: int, proposal: Proposal | None = None) -> Candidate:
    return Candidate(id=number, state=CandidateState.DONE, created=0.0, updated=0.0, proposal=proposal)


@pytest.fixture(scope="session")
def sample() -> list[Genome]:
    return draw_genomes(40, seed=0)


@pytest.fixture
def candidate():
    return make_candidate


@pytest.fixture
def genomes():
    return draw_genomes

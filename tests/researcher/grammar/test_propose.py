import hashlib
import os
import random
import re
import subprocess
import sys
from itertools import combinations

import msgspec
import pytest

from asi_lab.records import Proposal
from asi_lab.researcher.grammar import (
    Genome,
    change_note,
    gated_delta_net_genome,
    is_valid,
    propose,
    read_genome,
    seed_genome,
)
from asi_lab.researcher.grammar.genome import GENES
from asi_lab.researcher.grammar.motivation import argument, motivate
from asi_lab.researcher.grammar.mutate import mutate, recombine
from asi_lab.researcher.grammar.naming import architecture_name
from asi_lab.researcher.grammar.step import Step, steps


def by_hand(genome: dict | None) -> Proposal:
    return Proposal("delta_net_mystery", "", "", "", researcher="llm", genome=genome)


@pytest.fixture
def lineage(candidate):
    """A small search: each candidate's parent and references are drawn from those before it."""
    rng = random.Random(3)
    found = [candidate(0)]
    for number in range(1, 60):
        references = rng.sample(found, min(4, len(found)))
        parent = rng.choice(found)
        found.append(candidate(number, propose(parent, references, rng)))
    return found


def test_proposals_are_complete(lineage):
    for found in lineage[1:]:
        proposal = found.proposal
        assert re.fullmatch(r"delta_net_[a-z0-9_]{1,38}", proposal.name)
        assert 80 <= len(proposal.motivation.split()) <= 200
        assert proposal.change
        assert (proposal.researcher, proposal.model, proposal.code_hash) == ("grammar", "", "")
        genome = msgspec.convert(proposal.genome, Genome)
        assert is_valid(genome) is None
        assert proposal.code.startswith(f'"""{proposal.name}: ')


def test_motivations_name_parent_and_every_step(candidate, lineage):
    for parent in lineage[1:20]:
        child = propose(parent, [], random.Random(parent.id))
        assert f"{parent.proposal.name} (candidate {parent.id})" in child.motivation
        taken = steps(read_genome(parent), msgspec.convert(child.genome, Genome))
        assert all(step.phrase in child.motivation for step in taken)
        assert child.change == "; ".join(step.note for step in taken)
        assert not re.search(r"[*#`{}]|None|True|False", child.motivation)


@pytest.mark.parametrize("inherits", [True, False])
def test_even_the_largest_crossings_are_argued_within_the_limits(candidate, genomes, inherits):
    """Reasons give way to the list of changes, but one reason and one expectation always stay."""
    starts = genomes(60, 5) if inherits else [seed_genome()] * 60
    for seed, (start, mate) in enumerate(zip(starts, genomes(60, 6), strict=True)):
        child = recombine(start, mate, random.Random(seed))
        parent, other = candidate(1, by_hand(None)), candidate(9, by_hand(msgspec.to_builtins(mate)))
        text = motivate(parent, start, child, inherits=inherits, mate=(other, mate))
        arguments = [found for step in steps(start, child) if (found := argument(step))]
        assert 80 <= len(text.split()) <= 200
        assert any(found.why in text and found.expect in text for found in arguments), text


def test_motivations_of_different_changes_share_little_text(candidate):
    texts = [propose(candidate(0), [], random.Random(seed)) for seed in range(40)]
    pairs = [(a, b) for a, b in combinations(texts, 2) if a.change != b.change]
    shared = []
    for a, b in pairs:
        sentences = [set(re.split(r"(?<=[.])\s", text.motivation)) for text in (a, b)]
        shared.append(len(sentences[0] & sentences[1]) / min(map(len, sentences)))
    assert len(pairs) > 700
    assert sum(shared) / len(shared) < 0.1
    assert max(shared) < 0.9


def test_a_recombination_names_the_reference(candidate):
    mate = candidate(8, by_hand(msgspec.to_builtins(gated_delta_net_genome())))
    crossed = [propose(candidate(0), [mate], random.Random(seed)) for seed in range(20)]
    named = [p for p in crossed if "delta_net_mystery (candidate 8)" in p.motivation]
    assert 3 <= len(named) <= 15
    assert {p.change for p in named} == {
        "decay none -> data-dependent",
        "output gate none -> SiLU; +gate scope channel",
    }


@pytest.mark.parametrize("genome", [None, {"wings": 2}, {"router": "softmax"}])
def test_a_parent_without_usable_genome_gives_way_to_the_seed_and_the_text_says_so(candidate, genome):
    proposal = propose(candidate(12, by_hand(genome)), [], random.Random(0))
    assert "delta_net_mystery (candidate 12) carries no genome" in proposal.motivation
    assert "its code is not used" in proposal.motivation
    assert proposal.change == change_note(seed_genome(), msgspec.convert(proposal.genome, Genome))


def test_the_seed_needs_no_record_of_its_genome(candidate):
    assert read_genome(candidate(0)) == seed_genome()
    assert "carries no genome" not in propose(candidate(0), [], random.Random(0)).motivation


def test_children_are_never_the_seed_or_a_reference(candidate):
    parent = candidate(1, by_hand(msgspec.to_builtins(gated_delta_net_genome())))
    mate = candidate(2, by_hand({"decay": "data"}))
    genomes = [
        msgspec.convert(propose(parent, [mate], random.Random(seed)).genome, Genome) for seed in range(200)
    ]
    assert {seed_genome(), gated_delta_net_genome(), Genome(decay="data")}.isdisjoint(genomes)


def test_every_step_has_an_argument():
    """Each value that a gene can arrive at is argued, and numbers in each direction."""
    for gene, values in GENES.items():
        for old in values:
            for new in values:
                if old != new:
                    why, cost, expect = argument(Step(gene, old, new))
                    assert all(text.endswith(".") and "{" not in text for text in (why, cost, expect))


def test_steps_speak_only_of_mechanisms_in_use():
    routed = Genome(router="softmax", copy=True, floor="fixed", floor_percent=10, short_fir=3)
    assert (
        change_note(seed_genome(), routed)
        == "+short FIR 3; +copy path; router none -> softmax; +router input token; "
        "+router floor fixed; +floor share 10 %"
    )
    assert change_note(routed, Genome(short_fir=3)) == "-copy path; router softmax -> none; -router floor"


def test_names_fit_and_the_seed_keeps_its_own():
    assert architecture_name(seed_genome()) == "delta_net"
    rng, genome = random.Random(0), seed_genome()
    for _ in range(300):
        parent, genome = genome, mutate(genome, rng)
        name = architecture_name(genome, [step.gene for step in steps(parent, genome)])
        assert re.fullmatch(r"[a-z0-9_]{1,48}", name)
    fused = Genome(decay="data", long_fir=31, router="sigmoid")
    assert architecture_name(fused) == "delta_net_gated_fir31_sigmoid_router"


DIGEST = """
import hashlib, random, sys
from asi_lab.records import Candidate, CandidateState
from asi_lab.researcher.grammar import propose
import msgspec
assert "torch" not in sys.modules
rng, found = random.Random(7), []
def keep(proposal):
    found.append(Candidate(len(found), CandidateState.DONE, 0.0, 0.0, proposal=proposal))
keep(None)
for _ in range(25):
    keep(propose(rng.choice(found), rng.sample(found, min(4, len(found))), rng))
print(hashlib.sha256(msgspec.json.encode(found)).hexdigest())
"""


def test_the_same_state_gives_the_same_bytes_in_every_process_and_without_torch():
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == len(hashlib.sha256().hexdigest())

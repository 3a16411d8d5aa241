"""The page of a candidate: its probes beside those of the baselines, in 80 columns."""

from __future__ import annotations

import math

import msgspec
from rich.console import Console

from asi_lab.lab.config import from_preset
from asi_lab.records import BaselineRun, Evaluation, TaskResult
from asi_lab.scoring.baselines import ARCHITECTURES, Baselines
from asi_lab.view import page


def probed(evaluation: Evaluation, *probabilities: float) -> Evaluation:
    curve = tuple((20 * place, math.log(p)) for place, p in enumerate(probabilities, start=1))
    task = TaskResult("probe_reassigned", 0.5, "answer_probability", True, 0.125, 10, curve=curve)
    return msgspec.structs.replace(evaluation, tasks=(*evaluation.tasks, task))


def printed(known: page.Dossier) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(page.page(known, "lineage"))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_curves_of_probes_stand_beside_those_of_the_baselines(make_candidate):
    candidate = make_candidate(1)
    evidence = candidate.evidence
    runs = [
        BaselineRun(
            name,
            index,
            msgspec.structs.replace(evidence, evaluation=probed(evidence.evaluation, 0.125, 0.25, 0.5, last)),
        )
        for name, last in zip(ARCHITECTURES, (0.5, 1.0), strict=True)
        for index in range(3)
    ]
    mine = msgspec.structs.replace(evidence, evaluation=probed(evidence.evaluation, 0.125, 0.4, 0.9, 1.0))
    known = page.Dossier(
        msgspec.structs.replace(candidate, evidence=mine), baselines=Baselines(from_preset("micro"), runs)
    )
    lines = printed(known)
    assert max(map(len, lines)) <= 80
    shown = [" ".join(line.split()) for line in lines]
    at = shown.index("recall with reassigned keys ▂▄▇█ 0.125, 0.400, 0.900, 1.000")
    assert shown[at + 1 : at + 4] == [
        "DeltaNet ▂▃▅▅ 0.125, 0.250, 0.500, 0.500",
        "Gated DeltaNet ▂▃▅█ 0.125, 0.250, 0.500, 1.000",
        "after 20, 40, 60, 80 steps",
    ]
    assert "Probes in training" in " ".join(shown)


def test_without_probes_there_is_no_such_section(make_candidate):
    lines = printed(page.Dossier(make_candidate(1)))
    assert any("recall" in line for line in lines)
    assert not any("Probes" in line for line in lines)

"""A lab from its search to what it may claim: python benchmarks/findings.py LAB [--hours H] [--report]

Searches at micro, makes the claims there, and those of what gained at mini, all with asi-lab's own commands,
and writes docs/findings.md from the store. Each call goes on where the last one was cut off. A lab that is
not there is unpacked from results/findings.tar.xz, and packed into it in the end, without data and trials:
data are made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1]))

import lmdb
import msgspec
from record import nobody

from asi_lab.events import Event
from asi_lab.lab import Lab, Store, codec, fresh, trial_label
from asi_lab.records import SEED_ID, Candidate, CandidateState
from asi_lab.scoring import agreement, verification
from asi_lab.scoring.baselines import TITLES, Baselines
from asi_lab.scoring.beside import Beside, of_references
from asi_lab.scoring.verification import Claim, Verdict, Verification
from asi_lab.view import verdicts

ARCHIVE = Path(__file__).parent / "results" / "findings.tar.xz"
FINDINGS = Path(__file__).parents[1] / "docs" / "findings.md"
WIDTH = 126


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("lab", type=Path)
    parser.add_argument("--experiments", type=int, default=60)
    parser.add_argument("--hours", type=float, default=1.0, help="begin no fresh run after so long")
    parser.add_argument("--report", action="store_true", help="only write what is known")
    arguments = parser.parse_args()
    lab = Lab(arguments.lab)
    if not lab.exists and ARCHIVE.exists():
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(lab.path, filter="data")
    if not arguments.report:
        make(lab, arguments.experiments, arguments.hours)
    with Store.open_readonly(lab.store) as store:
        FINDINGS.write_text("\n".join(map(wrapped, report(lab, store))) + "\n")
    pack(lab)


def wrapped(line: str) -> str:
    """A paragraph or an item in lines of the width of our pages; what is neither as it is."""
    indent = "  " if line.startswith("- ") else ""
    is_prose = line and line[0] not in "#| \n"
    return textwrap.fill(line, WIDTH, subsequent_indent=indent) if is_prose else line


def make(lab: Lab, experiments: int, hours: float) -> None:
    """Search and verify, as far as that is not done."""

    def run(*words: object) -> None:
        command = [sys.executable, "-m", "asi_lab", "--lab", lab.path, *words]
        subprocess.run(list(map(str, command)), check=True)

    if not lab.exists:
        run("init", "--preset", "micro")
    run("--no-tui", "--experiments", experiments)
    run("verify", "--hours", hours)


def pack(lab: Lab) -> None:
    """Keep what the lab has found, without the place where it lies."""
    with tempfile.TemporaryDirectory() as folder:
        raw, kept = Path(folder, "raw"), Path(folder, "store")
        for place in (raw, kept):
            place.mkdir()
        with lmdb.open(str(lab.store), readonly=True, lock=False, max_dbs=32) as full:
            full.copy(str(raw), compact=True)
        with lmdb.open(str(raw), max_dbs=32, map_size=2**30) as copy:
            forget(str(lab.path), copy)
            copy.copy(str(kept), compact=True)
        with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
            archive.add(lab.config, lab.config.name, filter=nobody)
            archive.add(lab.lineage, lab.lineage.name, filter=nobody)
            archive.add(kept / "data.mdb", "store/data.mdb", filter=nobody)


def forget(path: str, store: lmdb.Environment) -> None:
    """Name no path in the events of a store."""
    table = store.open_db(b"events")
    with store.begin(write=True) as txn:
        told = [(key, value) for key, value in txn.cursor(table) if path.encode() in value]
        for key, value in told:
            event = codec.unpack(msgspec.msgpack.Decoder(Event), value, "an event")
            event = msgspec.structs.replace(event, message=event.message.replace(path, "lab"))
            txn.put(key, codec.pack(event), db=table)


def report(lab: Lab, store: Store) -> Iterator[str]:
    """The lines of docs/findings.md."""
    settings = lab.settings()
    found = verdicts.everywhere(settings, store)
    candidates = {c.id: c for c in store.candidates() if c.id != SEED_ID}
    done = [c for c in candidates.values() if c.state is CandidateState.DONE]
    yield "# Findings"
    yield ""
    yield "    python benchmarks/findings.py LAB --hours H"
    yield ""
    yield (
        f"One lab, preset `{settings.preset}`, seed {settings.seed}, the grammar alone: {len(candidates)} "
        f"candidates, {len(done)} of them with a score. Then [claims](verification.md) by fresh runs, at one "
        "scale after the other. This page is written by the script from the store, which is kept in "
        "`benchmarks/results/findings.tar.xz`; another call goes on where the last one was cut off."
    )
    for scale, one in found.items():
        yield from of_scale(scale, one, candidates)
    yield from luck(lab, store, next(iter(found.values())), candidates)
    yield from truth(found)
    yield from costs(store, found)


def of_scale(scale: str, found: Verification, candidates: dict[int, Candidate]) -> Iterator[str]:
    bar = TITLES[found.terms.bar]
    yield f"\n## At {scale}\n"
    yield f"**{verdicts.headline(found)}.**"
    yield ""
    tuned = f"at {found.bar_rate:g} times the preset's learning rate" if found.bar_rate else "not tuned yet"
    yield (
        f"The bar is {bar}, {found.bar_runs} of {found.terms.bar_runs} fresh runs, {tuned}. "
        "Gains are nats of held-out loss under its mean; intervals are at "
        f"{verification.confidence(found)}, those against other references at 95 %, each alone and not "
        "claimed. The gain of an open claim is that so far."
    )
    others = [TITLES[name] for name in found.terms.beside]
    headings = ("id", "change", "verdict", "runs", "rate", "gain", "interval", *map("over {}".format, others))
    yield f"\n| {' | '.join(headings)} |"
    yield f"|---:|---|---|---:|---:|---:|---|{'---|' * len(others)}"
    for claim in sorted(found.claims, key=lambda claim: -(claim.gain.gain if claim.gain else -9)):
        candidate = candidates[claim.candidate]
        change = candidate.proposed.change.splitlines()[0].replace("|", "/")
        cells = [trial_label(claim.candidate), change, verdict_of(claim), str(claim.runs)]
        cells += ["" if claim.rate is None else f"{claim.rate:g}"]
        cells += ["" if claim.gain is None else f"{claim.gain.gain:+.4f}"]
        cells += ["" if claim.interval is None else "{:+.4f} to {:+.4f}".format(*claim.interval)]
        beside = {line.name: line for line in of_references(found, claim)}
        cells += [over(beside.get(name)) for name in found.terms.beside]
        yield f"| {' | '.join(cells)} |"


def verdict_of(claim: Claim) -> str:
    words = claim.verdict.value
    words += f" ({claim.failed})" if claim.failed else " (dropped)" if claim.dropped else ""
    return f"**{words}**{', tagged' if claim.tagged else ''}" if claim.verdict is Verdict.HOLDS else words


def over(line: Beside | None) -> str:
    if line is None:
        return ""
    told = f"{line.bar - line.candidate:+.4f}"
    return told if line.interval is None else f"{told} ({-line.interval[1]:+.3f} to {-line.interval[0]:+.3f})"


def luck(lab: Lab, store: Store, found: Verification, candidates: dict[int, Candidate]) -> Iterator[str]:
    """What the search saw in those that it promoted, and what fresh runs gave."""
    known = Baselines(lab.settings(), store.baselines())
    mean = fmean(run.loss for run in known.evaluations(known.bar))
    fresh_bar = found.losses[found.terms.bar]
    rows = [
        (mean - loss, fmean(fresh_bar) - fmean(mine))
        for claim in found.claims
        if (loss := candidates[claim.candidate].loss) is not None
        and (mine := found.losses[trial_label(claim.candidate)])
        and fresh_bar
    ]
    if not rows:
        return
    yield "\n## What was luck\n"
    yield (
        f"Over the {len(rows)} promoted candidates with fresh runs, the one run of the search lay "
        f"{fmean(row[0] for row in rows):+.4f} nats under the bar's mean there, fresh runs lie "
        f"{fmean(row[1] for row in rows):+.4f} under its fresh mean, some of them at a learning rate of "
        "their own. What is less is what they had of luck."
    )


def truth(found: dict[str, Verification]) -> Iterator[str]:
    yield "\n## Is the small scale telling the truth?\n"
    for scale, one in found.items():
        hit = agreement.hits(scale, one)
        if not hit.promoted + hit.drawn:
            continue
        yield (
            f"- At {scale} {hit.promoted_under} of {hit.promoted} promoted candidates with fresh runs have a "
            f"mean under the bar's, and {hit.drawn_under} of {hit.drawn} that were drawn by lot."
        )
    for low, high in pairwise(found.items()):
        both = agreement.agreement(*low, *high)
        for who, value in (("all", both.everyone), ("the better half", both.better_half)):
            if value is not None:
                low_end, high_end = value.interval
                yield (
                    f"- Spearman's rank correlation of {both.smaller} with {both.larger}, {who} "
                    f"({value.count} architectures): {value.value:.2f} ({low_end:.2f} to {high_end:.2f})."
                )
    if not any(one.bar_runs for one in [*found.values()][1:]):
        yield "- No larger scale was reached yet."


def costs(store: Store, found: dict[str, Verification]) -> Iterator[str]:
    yield "\n## What it cost\n"
    yield "| what | trials | hours of trials |"
    yield "|---|---:|---:|"
    search = [c.evidence.training for c in store.candidates() if c.evidence and c.evidence.training]
    yield row("the search", [training.seconds for training in search])
    for name, scale in zip(found, ["", *fresh.rungs(store)], strict=True):
        runs = [run for run in fresh.runs(store, scale) if run.evidence.training]
        took = [
            [r.evidence.training.seconds for r in runs if r.is_tuning is tuning] for tuning in (True, False)
        ]
        yield row(f"learning rates at {name}", took[0])
        yield row(f"fresh runs at {name}", took[1])


def row(what: str, seconds: Sequence[float]) -> str:
    return f"| {what} | {len(seconds)} | {sum(seconds) / 3600:.2f} |"


if __name__ == "__main__":
    main()

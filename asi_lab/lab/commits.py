"""A candidate's record as a git commit: a pure function, so re-making gives the same object id.

Everything in a commit is a result. What was timed is left out, and what the candidate's number stands for is
its date: two searches with the same results have the same commits, on whatever day and however busy the
machine was. So is what changes after the commit was made (`state` analysed or done, `commit`, `updated`,
`starts`). Ids are those git computes: the SHA-1 of blob, tree and commit objects. Commits of older rules keep
the form that they had.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from asi_lab.common.text import plain
from asi_lab.lab import timeless
from asi_lab.records import SEED_ID, Against, Candidate, CandidateState, Proposal, Repair

MAIN = "refs/heads/main"
BEST = "refs/heads/best"
ARCHITECTURES = "refs/heads/arch/"
FAILURES = "refs/failed/"
REFERENCES = "refs/heads/reference/"
NOTES, VERDICTS = "refs/notes/asi-lab", "refs/notes/asi-lab-verdicts"
NAME, EMAIL = "asi-lab", "asi-lab@localhost"

EPOCH = 946_684_800
"""Midnight at the start of the year 2000, UTC: the date of the seed. Candidate n comes n minutes later."""

_SUBJECT = 72
_SUMMARY = 600
_VALUE = 200
_IDENTITY = f"{NAME} <{EMAIL}>"
_MARK = re.compile(r"^(?:[#-]|[A-Za-z0-9][A-Za-z0-9-]*\s*:)", re.MULTILINE)
"""Starts of lines in which git sees more than text: a trailer, a comment, the end of the message."""


class Commit(msgspec.Struct, frozen=True):
    """One commit to be: `files` by name, `time` in seconds since the epoch (UTC)."""

    ref: str
    parent: str | None
    time: int
    message: str
    files: Mapping[str, bytes]

    @property
    def sha(self) -> str:
        """The object id git gives to this commit (40 hexadecimal digits)."""
        tree = b"".join(
            b"100644 %s\0%s" % (name.encode(), bytes.fromhex(_object_id("blob", content)))
            for name, content in sorted(self.files.items())
        )
        parent = f"parent {self.parent}\n" if self.parent else ""
        who = f"{_IDENTITY} {self.time} +0000"
        head = f"tree {_object_id('tree', tree)}\n{parent}author {who}\ncommitter {who}\n\n"
        return _object_id("commit", (head + self.message).encode())

    def stream(self, mark: int, marks: Mapping[str, int]) -> bytes:
        """Return the commit in the input language of `git fast-import`.

        `mark` numbers it within the stream; `marks` are those of the commits before it, by id.
        """
        head = f"commit {self.ref}\nmark :{mark}\ncommitter {_IDENTITY} {self.time} +0000\n"
        parts = [head.encode(), _data(self.message.encode())]
        if self.parent:
            known = marks.get(self.parent)
            parts.append(f"from {self.parent if known is None else f':{known}'}\n".encode())
        parts.append(b"deleteall\n")
        for name, content in sorted(self.files.items()):
            parts += [f"M 100644 inline {name}\n".encode(), _data(content)]
        return b"".join([*parts, b"\n"])


def is_published(candidate: Candidate) -> bool:
    """Whether the lineage keeps the candidate: it came to an end, and there is code to keep."""
    return candidate.proposal is not None and candidate.state.is_terminal


def ref_of(candidate: Candidate) -> str:
    """Return the ref of a candidate: a branch when it is scored, hidden from branches when it failed."""
    if candidate.id == SEED_ID:
        return MAIN
    if candidate.state.is_failure:
        return f"{FAILURES}{candidate.id:04d}"
    return f"{ARCHITECTURES}{candidate.id:04d}-{_slug(candidate.name)}"


def seed_commit(seed: Candidate, config_text: str) -> Commit:
    """Return the root commit: code and motivation of the seed, not what is measured later.

    Raises ValueError when the seed has no proposal.
    """
    proposal = _proposal(seed)
    trailers = [("Candidate", str(seed.id)), ("Status", "seed"), ("Researcher", proposal.researcher)]
    files = _sources(proposal, config_text)
    return Commit(MAIN, None, _seconds(seed), _message(proposal, trailers), files)


def reference_commit(reference: Proposal, seed: Candidate, config_text: str) -> Commit:
    """Return the commit of a reference baseline, a child of the root."""
    trailers = [("Status", "reference"), ("Researcher", reference.researcher)]
    return Commit(
        ref=f"{REFERENCES}{_slug(reference.name)}",
        parent=seed_commit(seed, config_text).sha,
        time=_seconds(seed),
        message=_message(reference, trailers),
        files=_sources(reference, config_text),
    )


def candidate_commit(candidate: Candidate, config_text: str, parent: str) -> Commit:
    """Return the commit of a scored or failed candidate on top of its parent's commit.

    Raises ValueError when the candidate has no proposal.
    """
    proposal = _proposal(candidate)
    files = _sources(proposal, config_text)
    files["metrics.json"] = _metrics(candidate, proposal)
    if candidate.analysis:
        files["analysis.md"] = _document(candidate.analysis.text)
    if candidate.state.is_failure and candidate.evidence and candidate.evidence.error:
        error = candidate.evidence.error
        error = error if candidate.rules < TIMELESS_RULES else timeless.error(candidate.state, error)
        files["error.txt"] = _document(error)
    message = _message(proposal, _trailers(candidate, proposal))
    return Commit(ref_of(candidate), parent, _seconds(candidate), message, files)


def files_of(candidate: Candidate) -> dict[str, str]:
    """Return the texts that a candidate's commit holds, or would hold now, by file name.

    Raises ValueError when the candidate has no proposal.
    """
    commit = seed_commit(candidate, "") if candidate.id == SEED_ID else candidate_commit(candidate, "", "")
    texts = {name: content.decode() for name, content in commit.files.items() if name != "config.toml"}
    return texts | {"metrics.json": _metrics(candidate, _proposal(candidate)).decode()}


def _trailers(candidate: Candidate, proposal: Proposal) -> list[tuple[str, str]]:
    trailers = [("Candidate", str(candidate.id))]
    if candidate.arm and candidate.arm.is_apart:
        trailers.append(("Arm", candidate.arm.value))
    if candidate.draw:
        trailers.append(("Parent", str(candidate.draw.parent)))
        trailers += [("Reference", str(reference)) for reference in candidate.draw.references]
    score, loss = candidate.score, candidate.loss
    if score:
        trailers.append(("Fitness", f"{score.fitness:.4f} +- {score.noise.fitness:.4f}"))
    if loss is not None:
        trailers.append(("Loss", f"{loss:.4f} +- {score.noise.loss:.4f}" if score else f"{loss:.4f}"))
    trailers += [("Against", _against(one)) for one in (score.against if score else ())]
    if score:
        trailers.append(("Benchmark", f"{score.benchmark_gain:.4f} +- {score.noise.benchmark:.4f}"))
        trailers.append(("Judge", f"{score.judgement.mark:.2f} +- {score.noise.judge:.2f}"))
    if candidate.evidence and candidate.evidence.training:
        trailers.append(("Params", str(candidate.evidence.training.params)))
    trailers.append(("Status", _status(candidate)))
    if candidate.released:
        trailers.append(("Released", "by hand"))
    trailers.append(("Researcher", proposal.researcher))
    if proposal.model:
        trailers.append(("Model", proposal.model))
    trailers += [("Cognition", cognition.key) for cognition in proposal.cognitions]
    trailers += [("Repaired", f"{done.role} after {done.failure.value}") for done in candidate.repairs]
    return trailers


def _against(found: Against) -> str:
    verdict = "beaten" if found.is_better else "not beaten"
    return f"{found.reference} {found.difference:+.4f} nats, {verdict} (needs {-found.margin:+.4f})"


def _message(proposal: Proposal, trailers: list[tuple[str, str]]) -> str:
    title = f"{proposal.name}: {proposal.change}".rstrip(": ")
    subject = plain(title, limit=_SUBJECT).lstrip("#- ") or "unnamed"
    motivation = plain(proposal.motivation, multiline=True, limit=2 * _SUMMARY).strip()
    summary = textwrap.shorten(motivation.split("\n\n")[0], _SUMMARY, placeholder=" ...")
    body = "\n".join(textwrap.wrap(summary, 72, break_on_hyphens=False))
    body = _MARK.sub(lambda match: "  " + match.group(), body)  # indented, it is text
    lines = "\n".join(f"{key}: {plain(value, limit=_VALUE) or '-'}" for key, value in trailers)
    return "\n\n".join(part for part in (subject, body, lines) if part) + "\n"


LATER = {"training": ("step_seconds", "cpu_seconds"), "evaluation": ("correction",)}
"""Figures that records of the first rules do not have, nor their commits."""

EARLIER = "prefix_error"
"""What only records of the first rules have."""

TIMELESS_RULES = 3
"""From these rules on tasks have curves, and a commit holds nothing that was timed."""


def _evidence(candidate: Candidate) -> dict[str, Any] | None:
    """The evidence as a commit tells it: in the form that it had under the candidate's rules."""
    if candidate.evidence is None:
        return None
    told: dict[str, Any] = msgspec.to_builtins(candidate.evidence)
    for task in (told["evaluation"] or {}).get("tasks", ()):
        del task["seconds"], task["reported"]
        if candidate.rules < TIMELESS_RULES:
            del task["curve"]
    if candidate.rules == 1:
        for part, names in LATER.items():
            told[part] = told[part] and {key: value for key, value in told[part].items() if key not in names}
    else:
        for part in (told["evaluation"], *told["held_out"]):
            (part or {}).pop(EARLIER, None)
    if candidate.rules < TIMELESS_RULES:
        del told["work"]
    else:
        timeless.strip(told, candidate.state)
    return told


def _draw(candidate: Candidate) -> dict[str, Any] | None:
    """The draw. Only controls that are kept apart from the pool name their arm: the others are told by who
    wrote them."""
    told: dict[str, Any] | None = msgspec.to_builtins(candidate.draw)
    if told and not (candidate.arm and candidate.arm.is_apart):
        del told["arm"]
    return told


def _score(candidate: Candidate) -> dict[str, Any] | None:
    """The score, likewise."""
    if candidate.score is None:
        return None
    told: dict[str, Any] = msgspec.to_builtins(candidate.score)
    if candidate.rules < TIMELESS_RULES:
        del told["judgement"]["beyond"]
        told["noise"]["freedom"] = round(told["noise"]["freedom"])
    return told


def _repairs(candidate: Candidate) -> Sequence[Repair]:
    if candidate.rules < TIMELESS_RULES:
        return candidate.repairs
    return [
        msgspec.structs.replace(done, error=timeless.error(done.failure, done.error))
        for done in candidate.repairs
    ]


def _metrics(candidate: Candidate, proposal: Proposal) -> bytes:
    analysis = candidate.analysis
    content = {
        "candidate": candidate.id,
        "status": _status(candidate),
        "draw": _draw(candidate),
        "name": proposal.name,
        "change": proposal.change,
        "researcher": proposal.researcher,
        "model": proposal.model,
        "prompts": proposal.prompts,
        "repairs": _repairs(candidate),
        "genome": proposal.genome,
        "code_hash": proposal.code_hash,
        "nearest": proposal.nearest,
        "near_duplicates_rejected": proposal.rejected,
        "evidence": _evidence(candidate),
        "score": _score(candidate),
        "ablation": analysis.ablation if analysis else None,
        "weaknesses": analysis.weaknesses if analysis else None,
        "analyst": analysis.analyst if analysis else None,
    }
    if proposal.cognitions:
        content["cognitions"] = proposal.cognitions
    if candidate.rules > 1:
        content["rules"] = candidate.rules
    if candidate.rules < TIMELESS_RULES:
        content["created"] = candidate.created
    return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=2) + b"\n"


def _sources(proposal: Proposal, config_text: str) -> dict[str, bytes]:
    return {
        "architecture.py": proposal.code.encode(),
        "motivation.md": _document(proposal.motivation),
        "config.toml": config_text.encode(),
    }


def _document(text: str) -> bytes:
    return (plain(text, multiline=True).rstrip() + "\n").encode()


def _status(candidate: Candidate) -> str:
    return candidate.state.value if candidate.state.is_failure else CandidateState.DONE.value


def _seconds(candidate: Candidate) -> int:
    if candidate.rules < TIMELESS_RULES:
        return max(0, int(candidate.created))
    return EPOCH + 60 * candidate.id


def _proposal(candidate: Candidate) -> Proposal:
    if candidate.proposal is None:
        raise ValueError(f"candidate {candidate.id} has no proposal to commit")
    return candidate.proposal


def _slug(name: str) -> str:
    """Reduce a name to `[a-z0-9_]`, at most 60 characters: safe in a ref and in a shell."""
    return re.sub(r"[^a-z0-9_]+", "_", name[:1000].lower()).strip("_")[:60].rstrip("_") or "unnamed"


def _object_id(kind: str, content: bytes) -> str:
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)

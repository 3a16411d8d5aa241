"""Training that was cut off: where it goes on.

    trials/0042/resume-500.pt    model, optimizer and generator after 500 steps, fetched from the trial
    trials/0042/resume.json      which of these counts, and what the engine knew then; written last

Both are written by the engine alone. A file of the trial's is only ever read by a trial.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from asi_lab.common import disk
from asi_lab.protocol import ARCHITECTURE_FILE, TrialJob, saved_file
from asi_lab.records import Check, HeldOut

RECORD_FILE = "resume.json"


class Cut(msgspec.Struct, frozen=True):
    """Training after `step` steps that took `seconds`, with the checks and held-out losses made by then.

    `wall_seconds` count from the job on, `cpu_seconds` are those of all its processes. `job` is the digest of
    what was trained; other code or other settings begin anew.
    """

    job: str
    step: int
    seconds: float
    held_out: tuple[HeldOut, ...]
    checks: tuple[Check, ...] = ()
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def file(self) -> str:
        """The name of the trial's file in the candidate's directory."""
        return saved_file(self.step)


NOTHING = Cut("", 0, 0.0, ())
"""Where training begins."""


def digest(directory: Path, job: TrialJob) -> str:
    """What of a job decides its result; limits, device, threads and where the lab lies do not."""
    train = msgspec.structs.replace(job.train, threads=0)
    decisive = (job.model, train, job.vocab_size, job.seed, job.shared_seed, job.data_seed, job.marks)
    found = hashlib.sha256(msgspec.json.encode(decisive))
    found.update((directory / ARCHITECTURE_FILE).read_bytes())
    return found.hexdigest()


def find(directory: Path, job: TrialJob) -> Cut | None:
    """Where this job's training goes on; None where it begins anew."""
    try:
        cut = msgspec.json.decode((directory / RECORD_FILE).read_bytes(), type=Cut)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return cut if cut.job == digest(directory, job) and (directory / cut.file).exists() else None


def keep(directory: Path, cut: Cut) -> None:
    """Let training go on from `cut` from now on. Its file lies in the directory already. Raises OSError."""
    disk.write(directory / RECORD_FILE, msgspec.json.encode(cut))
    _remove_files(directory, keep=cut.file)


def forget(directory: Path) -> None:
    """The trial is over, or has failed: nothing goes on."""
    (directory / RECORD_FILE).unlink(missing_ok=True)
    _remove_files(directory)


def _remove_files(directory: Path, keep: str = "") -> None:
    for path in (*directory.glob("resume-*.pt"), *directory.glob(".incoming-resume-*.pt")):
        if path.name != keep:
            path.unlink(missing_ok=True)

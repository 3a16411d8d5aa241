"""All checks of one candidate without training it, in the sandbox that a search would use."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from asi_lab.common import disk, scratch
from asi_lab.engineer.contract import check_source
from asi_lab.engineer.executor import LocalTrio, policy_of
from asi_lab.engineer.supervise import Supervision, run
from asi_lab.errors import DiskError
from asi_lab.protocol import ARCHITECTURE_FILE, TrialJob
from asi_lab.records import CandidateState, Evidence
from asi_lab.sandbox import Sandbox
from asi_lab.settings import Settings


def check(
    code: str, settings: Settings, vocab_size: int, sandbox: Sandbox, tick: Callable[[], None] = lambda: None
) -> Evidence:
    """Read the source against the contract, and if it keeps to it, run preflight at the lab's scale.

    Raises:
        TrialError: the machinery broke.
        DiskError: there is no folder for temporary files.
    """
    static = check_source(code)
    failed = [check for check in static if not check.passed]
    if failed:
        error = f"{failed[0].name}: {failed[0].detail}"
        return Evidence(static, failure=CandidateState.REJECTED, error=error)
    job = TrialJob.of(settings, "check", data="", vocab_size=vocab_size, seed=settings.seed)
    try:
        place = tempfile.TemporaryDirectory(prefix="asi-lab-check-")
    except OSError as error:
        raise DiskError(disk.explain(error, scratch.PLACE)) from None
    with place as folder:
        directory, slot = Path(folder, "candidate"), Path(folder, "slot")
        directory.mkdir()
        slot.mkdir()
        (directory / ARCHITECTURE_FILE).write_text(code, encoding="utf-8")
        trio = LocalTrio(slot, sandbox, policy_of(settings, ()), scored=False)
        return run(trio, job, None, directory, Supervision(tick=tick), Evidence(static))

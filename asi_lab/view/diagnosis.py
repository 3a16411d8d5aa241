"""What doctor says of one thing."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail"]


class Diagnosis(msgspec.Struct, frozen=True):
    """One check. `fail`: a search cannot run; `warn`: it can, with less. `fix` is empty when ok."""

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""

"""Long lists of cases: some among the fast tests, all among the slow ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def one_in(share: int, cases: Iterable[Any], name: Callable[[Any], str] = str) -> list[Any]:
    """The cases for `parametrize`, with one in `share` among the fast tests; each bears its name."""
    return [
        pytest.param(case, id=name(case), marks=pytest.mark.slow if number % share else ())
        for number, case in enumerate(cases)
    ]

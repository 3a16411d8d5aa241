"""An asker without a model: gives prepared answers by role and keeps what it was asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asi_lab.llm.ask import RoleFailed
from asi_lab.llm.codefile import CodeFile


class Prepared:
    """`answers` are the answers of each role, in the order in which they are asked for."""

    def __init__(self, **answers: Iterable[Any]) -> None:
        self._answers = {role: iter(given) for role, given in answers.items()}
        self.asked: dict[str, list[Mapping[str, str]]] = defaultdict(list)

    def __call__(
        self,
        role: str,
        kind: type,
        values: Mapping[str, str],
        code: CodeFile | None = None,
        is_done: Callable[[Any], str] = lambda answer: "",
    ) -> Any:
        self.asked[role].append(values)
        answer = next(self._answers[role])
        assert isinstance(answer, kind)
        if missing := is_done(answer):
            raise RoleFailed(missing)
        return answer

    def model_of(self, role: str) -> str:
        """The name of a model."""
        return "openai:prepared"

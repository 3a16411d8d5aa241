"""Is a proposal new? Decided before any compute is spent on it."""

from __future__ import annotations

import ast
import hashlib

from asi_lab.common.syntax import drop_docstrings, parsed


def code_hash(code: str) -> str:
    """Hash of what the code does: comments, docstrings, formatting and local names left out.

    Names that the contract or other modules fix (attributes, keyword arguments, imported names) stay.
    Code that does not parse is hashed as text.
    """
    try:
        tree = parsed(code)
    except (SyntaxError, ValueError, RecursionError):
        return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()[:24]
    drop_docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _rename_locals(node)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:24]


def _rename_locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Number the names that a function assigns, in the order of their first assignment."""
    numbers: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            numbers.setdefault(node.id, f"_{len(numbers)}")
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in numbers:
            node.id = numbers[node.id]

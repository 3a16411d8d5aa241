"""Source code without the prose of its author."""

from __future__ import annotations

import ast

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def drop_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings of a syntax tree in place."""
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def without_prose(code: str) -> str:
    """The code without docstrings and comments, which may praise it. Raises SyntaxError, ValueError or
    RecursionError where it is no code."""
    tree = ast.parse(code)
    drop_docstrings(tree)
    return ast.unparse(ast.fix_missing_locations(tree))

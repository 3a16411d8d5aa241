"""Source code as a syntax tree, and without the prose of its author."""

from __future__ import annotations

import ast
import threading

_parsing = threading.Lock()
"""Python 3.11 counts the depth of all trees that are being made together: with two threads at it, it raises
SystemError at times (CPython issue 106905)."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def parsed(code: str) -> ast.Module:
    """The syntax tree of source code, from any thread. Raises SyntaxError, ValueError or RecursionError where
    it is no code."""
    with _parsing:
        return ast.parse(code)


def drop_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings of a syntax tree in place."""
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def without_prose(code: str) -> str:
    """The code without docstrings and comments, which may praise it. Raises SyntaxError, ValueError or
    RecursionError where it is no code."""
    tree = parsed(code)
    drop_docstrings(tree)
    return ast.unparse(ast.fix_missing_locations(tree))

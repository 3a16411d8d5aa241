"""The candidate contract as far as it can be read off the source, without running it.

This is lint: it tells an author early what is wrong. What keeps code in bounds is the sandbox of the trial.
"""

from __future__ import annotations

import ast

from asi_lab.common.syntax import parsed
from asi_lab.engineer.lint import check_names
from asi_lab.engineer.scopes import bound_names, own_nodes
from asi_lab.protocol import CLASS_NAME
from asi_lab.records import Check

CONSTRUCTOR = [
    *("mode", "d_model", "hidden_size", "expand_k", "expand_v", "num_heads", "use_beta", "use_gate"),
    *("use_short_conv", "conv_size", "conv_bias", "allow_neg_eigval", "layer_idx", "qk_activation"),
    *("qk_norm", "norm_eps"),
]
FORWARD = ["hidden_states", "attention_mask", "past_key_values", "use_cache", "output_attentions"]
MAX_BYTES = 200_000


def faults(code: str) -> str:
    """What breaks the contract in a source, in words for its author; empty if nothing."""
    failed = [check for check in check_source(code) if not check.passed]
    return "; ".join(
        f"{check.name}{f' (line {check.line})' if check.line else ''}: {check.detail}" for check in failed
    )


def check_source(code: str) -> tuple[Check, ...]:
    """Static verdicts on the source of an `architecture.py`, in the order in which they matter."""
    if len(code.encode("utf-8", "replace")) > MAX_BYTES:
        return (Check("size", False, len(code), MAX_BYTES, f"expected at most {MAX_BYTES} bytes"),)
    try:
        tree = parsed(code)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        return (Check("syntax", False, detail=f"{where}{error.msg}", line=error.lineno),)
    return (Check("syntax", True), *check_names(tree), *_contract_class(tree))


def _contract_class(tree: ast.Module) -> list[Check]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = [node for node in classes if node.name == CLASS_NAME]
    if not found:
        present = ", ".join(node.name for node in classes) or "none"
        detail = f"expected a top-level class {CLASS_NAME}; found {present}"
        return [Check("class", False, detail=detail)]
    again = [line for line in _bindings(tree) if line != found[0].lineno]
    if again:
        detail = f"line {again[0]}: {CLASS_NAME} is bound again; expected one class of that name"
        return [Check("class", False, detail=detail, line=again[0])]
    methods = {node.name: node for node in found[0].body if isinstance(node, ast.FunctionDef)}
    checks = [Check("class", True)]
    for method, wanted in (("__init__", CONSTRUCTOR), ("forward", FORWARD)):
        if method not in methods:
            checks.append(Check(method, False, detail=f"{CLASS_NAME} does not define {method}"))
            continue
        arguments, line = methods[method].args, methods[method].lineno
        names = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}
        missing = [name for name in wanted if name not in names]
        detail = f"line {line}: missing argument {', '.join(missing)}" if missing else ""
        if not missing and arguments.kwarg is None:
            detail = f"line {line}: expected **kwargs"
        checks.append(Check(method, not detail, detail=detail, line=line if detail else None))
    return checks


def _bindings(tree: ast.Module) -> list[int]:
    """The lines that bind the module's name of the class, in whatever block, or let a function do it."""
    binding = [node for node in own_nodes(tree) if CLASS_NAME in bound_names(node)]
    binding += [node for node in ast.walk(tree) if isinstance(node, ast.Global) and CLASS_NAME in node.names]
    return sorted(getattr(node, "lineno", 0) for node in binding)

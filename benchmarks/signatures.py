"""What flash-linear-attention's functions take, and what ours make of it, as markdown tables.

    python benchmarks/signatures.py

Reads the sources of the package that is installed, which needs no GPU. Keywords that its functions take out
of `**kwargs` count too. docs/kernels.md holds the tables; a test compares them.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from asi_lab import kernels
from asi_lab.kernels.foreign import DIALECTS

COUNTERPARTS = {
    "delta_rule": ("delta_rule.chunk_delta_rule", "delta_rule.fused_recurrent_delta_rule"),
    "gated_delta_rule": (
        "gated_delta_rule.chunk_gated_delta_rule",
        "gated_delta_rule.fused_recurrent_gated_delta_rule",
    ),
    "kda": ("kda.chunk_kda", "kda.fused_recurrent_kda"),
    "dplr_delta_rule": (
        "generalized_delta_rule.chunk_dplr_delta_rule",
        "generalized_delta_rule.fused_recurrent_dplr_delta_rule",
        "generalized_delta_rule.chunk_iplr_delta_rule",
        "generalized_delta_rule.fused_recurrent_iplr_delta_rule",
        "rwkv7.chunk_rwkv7",
        "rwkv7.fused_recurrent_rwkv7",
        "rwkv7.fused_mul_recurrent_rwkv7",
    ),
    "linear_attention": (
        "linear_attn.chunk_linear_attn",
        "linear_attn.fused_chunk_linear_attn",
        "linear_attn.fused_recurrent_linear_attn",
        "simple_gla.chunk_simple_gla",
        "simple_gla.fused_chunk_simple_gla",
        "simple_gla.fused_recurrent_simple_gla",
        "simple_gla.parallel_simple_gla",
        "gla.chunk_gla",
        "gla.fused_recurrent_gla",
        "lightning_attn.chunk_lightning_attn",
        "lightning_attn.fused_recurrent_lightning_attn",
    ),
    "retention": (
        "retention.chunk_retention",
        "retention.fused_chunk_retention",
        "retention.fused_recurrent_retention",
        "retention.parallel_retention",
    ),
    "short_convolution": ("causal_conv1d.causal_conv1d",),
    "short_convolution_step": ("causal_conv1d.causal_conv1d_update",),
    "rms_norm": ("norm.rms_norm",),
    "l2_norm": ("norm.l2norm",),
    "gated_rms_norm": ("norm.rms_norm_gated", "norm.rmsnorm_fn"),
    "linear_cross_entropy": ("fused_linear_cross_entropy.fused_linear_cross_entropy_loss",),
}
"""Of each function of ours: those it stands for, as `module.function` of fla.ops or fla.modules."""

ALIASES = {"chunk_gdn": "chunk_gated_delta_rule", "fused_recurrent_gdn": "fused_recurrent_gated_delta_rule"}
"""Second names."""

STUBS = {"fused_chunk_delta_rule", "fused_chunk_gla"}
"""Functions that were, and now only say so."""

RECIPES = {"chunk_rwkv6", "fused_recurrent_rwkv6", "chunk_comba", "fused_recurrent_comba"} | {
    "fused_recurrent_hgrn",
    "fused_chunk_based",
    "parallel_based",
}
"""Functions that are a call or two of ours: see docs/kernels.md."""

ELSEWHERE = {
    *("chunk_abc", "chunk_cyfa", "chunk_gsa", "chunk_log_linear_attn", "chunk_mesa_net"),
    *("chunk_momentum_delta_rule", "chunk_precond_gated_delta_rule", "chunk_precond_kda", "fused_attnres"),
    *("fused_recurrent_cyfa", "fused_recurrent_gsa", "fused_recurrent_momentum_delta_rule"),
    *("fused_recurrent_precond_gated_delta_rule", "fused_recurrent_precond_kda", "parallel_attn"),
    *("parallel_forgetting_attn", "parallel_nsa", "parallel_parallax", "parallel_path_attn"),
    *("parallel_stickbreaking_attn", "parallel_wall_attn", "parallel_wall_attn_decode"),
}
"""Functions that none of ours stands for."""


class Argument(NamedTuple):
    """An argument of theirs, by position or by keyword; `default` is absent where there is none to read."""

    name: str
    by_position: bool
    default: Any


ABSENT = object()


def main() -> None:
    print(tables())


def tables() -> str:
    """Whom our functions stand for, what becomes of keywords they do not have, and defaults that differ."""
    return "\n\n".join((counterparts_table(), keywords_table(), defaults_table()))


def counterparts_table() -> str:
    """Of each pair the arguments that are the same by position."""
    like: dict[tuple[str, str], list[str]] = {}
    for ours, theirs in pairs():
        own = list(own_parameters(ours))
        given = [argument.name for argument in arguments(theirs) if argument.by_position]
        same = [name for i, name in enumerate(own) if own[: i + 1] == given[: i + 1]]
        like.setdefault((ours, ", ".join(same) or "none"), []).append(f"`{theirs}`")
    rows = [f"| `{ours}` | {', '.join(names)} | {same} |" for (ours, same), names in like.items()]
    return "\n".join(["| ours | theirs | the same by position |", "|---|---|---|", *rows])


def keywords_table() -> str:
    """Keywords of theirs that ours do not have; those of the same fate share a row."""
    where: dict[tuple[str, str], list[str]] = {}
    for ours, dialect in DIALECTS.items():
        for word, known in dialect.items():
            allowed = " or ".join(f"`{value}`" for value in known.nothing)
            kind = f"{known.kind} unless {allowed}" if allowed else known.kind
            where.setdefault((word, f"{kind}: {known.what}"), []).append(ours)
    recurrences = [name for name, dialect in DIALECTS.items() if "reverse" in dialect]
    words: dict[tuple[str, str], list[str]] = {}
    for (word, fate), names in where.items():
        functions = ", ".join(f"`{name}`" for name in names if name not in recurrences)
        if set(recurrences) <= set(names):
            told = f"all recurrences but `ssd`{functions and ', '}{functions}"
        else:
            told = ", ".join(f"`{name}`" for name in names)
        words.setdefault((told, fate), []).append(f"`{word}`")
    rows = [f"| {', '.join(same)} | {told} | {fate} |" for (told, fate), same in words.items()]
    return "\n".join(["| keyword | of | what becomes of it |", "|---|---|---|", *rows])


def defaults_table() -> str:
    """Where a call that leaves an argument out means something else."""
    rows = ["| theirs | argument | default there | ours |", "|---|---|---|---|"]
    for ours, theirs in pairs():
        own = own_parameters(ours)
        for name, _, default in arguments(theirs):
            if name not in own or default is ABSENT or own[name].default is inspect.Parameter.empty:
                continue
            same = default == own[name].default or {default, own[name].default} == {"swish", "silu"}
            if not same:
                rows.append(f"| `{theirs}` | {name} | `{default}` | `{own[name].default}` |")
    return "\n".join(rows)


def pairs() -> list[tuple[str, str]]:
    """Each function of ours with each that it stands for."""
    return [(ours, theirs) for ours, names in COUNTERPARTS.items() for theirs in names]


def own_parameters(ours: str) -> dict[str, inspect.Parameter]:
    """Those that a function of ours has itself."""
    return dict(inspect.signature(getattr(kernels, ours)).parameters)


def unknown(ours: str, theirs: str) -> list[str]:
    """Arguments of theirs that ours neither has nor accepts, translates or refuses by name."""
    known = {*own_parameters(ours), *DIALECTS[ours]}
    return [argument.name for argument in arguments(theirs) if argument.name not in known]


def unlisted() -> set[str]:
    """Functions that fla.ops exports and this module does not mention."""
    tree = ast.parse((_root() / "ops" / "__init__.py").read_text(encoding="utf-8"))
    exported = {alias.asname or alias.name for node in tree.body for alias in getattr(node, "names", ())}
    stood_for = {theirs.rpartition(".")[2] for _, theirs in pairs()}
    return exported - stood_for - ALIASES.keys() - STUBS - RECIPES - ELSEWHERE


@cache
def arguments(theirs: str) -> tuple[Argument, ...]:
    """Of the function `module.name`, those out of `**kwargs` last."""
    module, _, name = theirs.rpartition(".")
    node = _find(module, name)
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + [*node.args.defaults]
    found = [Argument(arg.arg, True, _value(d)) for arg, d in zip(positional, defaults, strict=True)]
    by_keyword = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    found += [Argument(arg.arg, False, _value(default)) for arg, default in by_keyword]
    rest = node.args.kwarg
    found += [Argument(word, False, ABSENT) for word in (_taken_out_of(rest.arg, node) if rest else ())]
    return tuple(found)


def _find(module: str, name: str) -> ast.FunctionDef:
    """The definition that a GPU runs, not those for other hardware."""
    folders = [_root() / part / module for part in ("ops", "modules")]
    for file in [file for folder in folders for file in sorted(folder.rglob("*.py"))]:
        if {"backends", "triton_ascend"} & set(file.relative_to(_root()).parts):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
    raise LookupError(f"flash-linear-attention has no {module}.{name}")


def _taken_out_of(rest: str, node: ast.FunctionDef) -> list[str]:
    """Keywords that the function looks for in its `**rest`, by `get`, `pop` or `in`."""
    words = []
    for inner in ast.walk(node):
        match inner:
            case ast.Call(ast.Attribute(ast.Name(taken), "get" | "pop"), [ast.Constant(word), *_]):
                pass
            case ast.Compare(ast.Constant(word), [ast.In()], [ast.Name(taken)]):
                pass
            case _:
                continue
        if taken == rest:
            words.append(word)
    return sorted(set(words))


def _value(default: ast.expr | None) -> Any:
    try:
        return ABSENT if default is None else ast.literal_eval(default)
    except ValueError:
        return ABSENT


@cache
def _root() -> Path:
    spec = importlib.util.find_spec("fla")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("flash-linear-attention is not installed")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    main()

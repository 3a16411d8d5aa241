"""What the source of a candidate may import, name and assign to.

Read off the syntax tree, so this is lint: it tells an author early, and can be got around by whoever wants
to. What holds is the confinement of the trial process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from asi_lab.records import Check

ALLOWED_IMPORTS = ("__future__", "torch", "einops", "math", "typing", "asi_lab.kernels", "fla")

FORBIDDEN_PATHS: dict[str, tuple[str, ...]] = {
    "files": (
        *("torch.load", "torch.save", "torch.hub", "torch.package", "torch.serialization"),
        *("torch.jit.load", "torch.jit.save", "torch.from_file", "torch.utils.data"),
    ),
    "native code": (
        *(
            "torch.utils.cpp_extension",
            "torch.ops.load_library",
            "torch.classes",
            "torch._C",
            "torch.library",
        ),
        "torch.cuda._compile_kernel",
    ),
    "processes and networks": ("torch.os", "torch.sys", "torch.multiprocessing", "torch.distributed"),
    "settings of the whole process": (
        *("torch.manual_seed", "torch.seed", "torch.random", "torch.set_rng_state", "torch.backends"),
        *("torch.set_default_dtype", "torch.set_default_device", "torch.set_default_tensor_type"),
        *("torch.set_num_threads", "torch.set_num_interop_threads", "torch.use_deterministic_algorithms"),
        *("torch.set_float32_matmul_precision", "torch.overrides", "torch.nn.modules.module"),
    ),
    "the lab's own code": (
        *("asi_lab.train", "asi_lab.preflight", "asi_lab.evaluate", "asi_lab.sandbox", "asi_lab.protocol"),
    ),
    "attention whose cost no counter sees": (
        *("fla.ops.attn", "fla.layers.attn", "fla.ops.nsa", "fla.layers.nsa"),
    ),
}
"""Dotted paths that are out of bounds, with everything below them, by what they reach."""

FORBIDDEN_BUILTINS = frozenset(
    {
        "open",
        "exec",
        "eval",
        "compile",
        "__import__",
        "breakpoint",
        "globals",
        "locals",
        "vars",
        "exit",
        "quit",
    }
    | {"__builtins__", "__loader__", "__spec__"}
)
ALLOWED_DUNDERS = frozenset(
    {"__init__", "__name__", "__class__", "__doc__", "__len__", "__call__", "__version__", "__post_init__"}
    | {"__getitem__", "__iter__", "__repr__", "__enter__", "__exit__"}
)


def check_names(tree: ast.Module) -> tuple[Check, Check, Check]:
    """The verdicts `imports`, `names` and `patching`; each tells the first line that is out of bounds."""
    known = _imported(tree)
    return (
        _verdict("imports", _bad_imports(tree)),
        _verdict("names", _bad_names(tree, known)),
        _verdict("patching", _patches(tree, known)),
    )


def _verdict(name: str, faults: Iterator[tuple[int, str]]) -> Check:
    line, words = min(faults, default=(0, ""))
    return Check(name, not words, detail=f"line {line}: {words}", line=line) if words else Check(name, True)


def _imported(tree: ast.Module) -> dict[str, str]:
    """The dotted path behind every imported name."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                known[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):  # other names for what was imported
        if isinstance(node, ast.Assign) and (path := _path(node.value, known)):
            known |= {target.id: path for target in node.targets if isinstance(target, ast.Name)}
    return known


def _bad_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        imports: list[tuple[str, str]] = []  # module, what is taken from it
        if isinstance(node, ast.Import):
            imports = [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            imports = [(module, f"{module}.{alias.name}") for alias in node.names]
        for module, path in imports:
            assert isinstance(node, ast.stmt)
            if not any(_is_below(module, allowed) for allowed in ALLOWED_IMPORTS):
                yield node.lineno, f"import of {module}; allowed are {', '.join(ALLOWED_IMPORTS)}"
            elif path.endswith(".*"):
                yield node.lineno, f"import of {path}: name what is used"
            elif reached := _reaches(path):
                yield node.lineno, f"import of {path}, which reaches {reached}"


def _bad_names(tree: ast.Module, known: dict[str, str]) -> Iterator[tuple[int, str]]:
    own = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_BUILTINS - own:
            yield node.lineno, f"{node.id} is out of bounds"
        elif isinstance(node, ast.Attribute):
            if _is_dunder(node.attr) and node.attr not in ALLOWED_DUNDERS:
                yield node.lineno, f"{node.attr} is out of bounds"
            elif (path := _path(node, known)) and (reached := _reaches(path)):
                yield node.lineno, f"{path} reaches {reached}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1] if len(node.args) > 1 else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and _is_dunder(name.value):
                yield node.lineno, f"getattr of {name.value} is out of bounds"


def _patches(tree: ast.Module, known: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Assignments to what was imported: they would change the trainer, which runs in the same process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            if path := _path(node, known):
                yield node.lineno, f"assignment to {path}, which was imported"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            is_setter = node.func.id in ("setattr", "delattr")
            if is_setter and (path := _path(node.args[0], known)):
                yield node.lineno, f"{node.func.id} on {path}, which was imported"


def _path(node: ast.expr, known: dict[str, str]) -> str:
    """The dotted path of `name.attribute...` or `name[...]` where the name was imported, else empty."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in known:
        return ""
    return ".".join([known[node.id], *reversed(parts)])


def _reaches(path: str) -> str:
    """What a dotted path reaches that is out of bounds, empty where nothing."""
    for reached, paths in FORBIDDEN_PATHS.items():
        if any(_is_below(path, forbidden) for forbidden in paths):
            return reached
    return ""


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root + ".")


def _is_dunder(name: str) -> bool:
    return len(name) > 4 and name.startswith("__") and name.endswith("__")

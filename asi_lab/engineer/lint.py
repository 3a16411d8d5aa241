"""Reads the syntax tree of a candidate for imports, names and assignments that are out of bounds."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from asi_lab.common.syntax import expression
from asi_lab.engineer.names import (
    ALLOWED_IMPORTS,
    BY_NAME,
    FORBIDDEN_BUILTINS,
    FORBIDDEN_NAMES,
    FRAMES,
    MODULES,
    is_below,
    is_special,
    reach_of_name,
    reach_of_path,
)
from asi_lab.engineer.scopes import Comprehension, Scopes, bound_names
from asi_lab.engineer.texts import constant, fields, may_be_forbidden
from asi_lab.records import Check

ACCESSORS = frozenset({"getattr", "hasattr", "setattr", "delattr"})
SETTERS = frozenset({"setattr", "delattr"})
MOST_LINES = 5


def check_names(tree: ast.Module) -> tuple[Check, Check, Check]:
    """The verdicts `imports`, `names` and `patching`; each tells the first line that is out of bounds, and
    where others are."""
    reader = _Reader(tree)
    reader.visit(tree)
    return (
        _verdict("imports", reader.imports),
        _verdict("names", reader.names),
        _verdict("patching", reader.patches),
    )


def _verdict(name: str, faults: dict[int, str]) -> Check:
    if not faults:
        return Check(name, True)
    first, *others = sorted(faults)
    more = f"; also line {', '.join(map(str, others[:MOST_LINES]))}" if others else ""
    more += f" and {len(others) - MOST_LINES} more" if len(others) > MOST_LINES else ""
    return Check(name, False, detail=f"line {first}: {faults[first]}{more}", line=first)


class _Reader(ast.NodeVisitor):
    """Collects faults by their line, the first one of each."""

    def __init__(self, tree: ast.Module) -> None:
        self.imports: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.patches: dict[int, str] = {}
        self.scopes = Scopes()
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
        self.modules = MODULES.union(*(_prefixes(alias.name) for node in imports for alias in node.names))

    def visit(self, node: ast.AST) -> None:
        """Read a node and all in it."""
        for name in bound_names(node):
            self._name(node, name)
        super().visit(node)

    # Scopes

    def visit_Module(self, node: ast.Module) -> None:
        self._inside(node, node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit(node.decorator_list)
        self._arguments(node.args)
        if node.returns is not None:
            self._annotation(node.returns)
        self._inside(node, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._arguments(node.args)
        self._inside(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit([*node.decorator_list, *node.bases, *node.keywords])
        for keyword in node.keywords:
            if keyword.arg == "metaclass":
                self._fault(self.names, keyword.value, "metaclass is out of bounds: use a plain class")
        self._inside(node, node.body)

    def generic_visit(self, node: ast.AST) -> None:
        """Visit what is in a node, in its scope if it opens one."""
        if isinstance(node, Comprehension):
            self.scopes.enter(node)
            super().generic_visit(node)
            self.scopes.leave()
        else:
            super().generic_visit(node)

    def _inside(self, node: ast.AST, body: Iterable[ast.AST]) -> None:
        self.scopes.enter(node)
        self._visit(body)
        self.scopes.leave()

    def _visit(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _arguments(self, arguments: ast.arguments) -> None:
        self._visit([*arguments.defaults, *filter(None, arguments.kw_defaults)])
        rest = filter(None, (arguments.vararg, arguments.kwarg))
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *rest):
            self._name(argument, argument.arg)
            if argument.annotation is not None:
                self._annotation(argument.annotation)

    # Imports

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(node, alias.name, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            self._import(node, module, f"{module}.{alias.name}")

    def _import(self, node: ast.stmt, module: str, path: str) -> None:
        if self.scopes.stack[-1].is_class:
            self._fault(self.imports, node, f"import of {path} in a class: put it at the top of the file")
        elif not any(is_below(module, allowed) for allowed in ALLOWED_IMPORTS):
            self._fault(self.imports, node, f"import of {module}; allowed are {', '.join(ALLOWED_IMPORTS)}")
        elif path.endswith(".*"):
            self._fault(self.imports, node, f"import of {path}: name what is used")
        elif reach := reach_of_path(path):
            self._fault(self.imports, node, reach.told(f"import of {path}"))

    # Names

    def visit_Name(self, node: ast.Name) -> None:
        self._read(node)
        if isinstance(node.ctx, ast.Load):
            self._whole_module(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._read(node)
        if isinstance(node.ctx, ast.Load):
            self._whole_module(node)
        else:
            self._patch(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._patch(node)
        self.generic_visit(node)

    def _read(self, node: ast.expr) -> None:
        """Visit an expression, where a module may stand as well: in front of a dot, or compared with None."""
        if isinstance(node, ast.Name):
            self._name(node, node.id)
            if isinstance(node.ctx, ast.Load) and self.scopes.is_builtin(node.id):
                if reach := FORBIDDEN_BUILTINS.get(node.id):
                    self._fault(self.names, node, reach.told(node.id))
                elif node.id in ACCESSORS:
                    words = f"{node.id} is handed on: call it here, with the name written out"
                    self._fault(self.names, node, words)
        elif isinstance(node, ast.Attribute):
            self._path(node, self.scopes.paths(node))
            self._name(node, node.attr, is_attribute=True)
            while isinstance(node.value, ast.Attribute):
                node = node.value
                self._name(node, node.attr, is_attribute=True)
            self._read(node.value)
        elif isinstance(node, ast.IfExp | ast.BoolOp | ast.UnaryOp):
            for part in ast.iter_child_nodes(node):
                if isinstance(part, ast.expr):
                    self._read(part)
        else:
            self.visit(node)

    def _name(self, node: ast.AST, name: str, *, is_attribute: bool = False) -> None:
        reach = reach_of_name(name) if is_attribute or is_special(name) else None
        if reach:
            self._fault(self.names, node, reach.told(name))

    def _path(self, node: ast.AST, paths: Iterable[str]) -> None:
        for path in sorted(paths):
            if reach := reach_of_path(path):
                self._fault(self.names, node, reach.told(path))

    def _whole_module(self, node: ast.expr) -> None:
        for path in sorted(self.scopes.paths(node) & self.modules):
            words = f"the module {path} is handed on: name what is used of it, as {path}.name"
            self._fault(self.names, node, words)

    def visit_keyword(self, node: ast.keyword) -> None:
        self._name(node.value, node.arg or "")
        self.visit(node.value)

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        for name in node.names:
            self._name(node, name)
            if name == "self":
                self._fault(self.patches, node, "self is bound anew: give the other object its own name")

    visit_Nonlocal = visit_Global  # noqa: N815

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._name(node, name, is_attribute=True)
        self.generic_visit(node)

    # Where a module may stand as a value

    def visit_Assign(self, node: ast.Assign) -> None:
        self._visit(node.targets)
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        is_alias = len(names) == len(node.targets) and all(map(self.scopes.keeps, names))
        self._read(node.value) if is_alias else self.visit(node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.target)
        self._read(node.value) if self.scopes.keeps(node.target.id) else self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        self._annotation(node.annotation)
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If | ast.While) -> None:
        self._read(node.test)
        self._visit([*node.body, *node.orelse])

    visit_While = visit_If  # noqa: N815

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._read(node.test)
        self._visit([node.body, node.orelse])

    def visit_Compare(self, node: ast.Compare) -> None:
        is_none = all(isinstance(other, ast.Constant) and other.value is None for other in node.comparators)
        self._read(node.left) if is_none else self.visit(node.left)
        self._visit(node.comparators)

    # Calls and text

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id=name) if name in ACCESSORS and self.scopes.is_builtin(name):
                self._access(node, name)
            case function:
                self._read(function)
                self._visit([*node.args, *node.keywords])

    def _access(self, node: ast.Call, accessor: str) -> None:
        """A call of getattr and the like."""
        if len(node.args) < 2 or any(isinstance(argument, ast.Starred) for argument in node.args[:2]):
            self._fault(self.names, node, f"{accessor} without a name: write object and name out")
            self._visit([*node.args, *node.keywords])
            return
        target, key, *rest = node.args
        paths, is_self = self.scopes.paths(target), self.scopes.is_self(target)
        shown = ", ".join(sorted(paths)) or ast.unparse(target)[:40]
        name = constant(key)
        if accessor in SETTERS and not is_self:
            self._fault(self.patches, node, f"{accessor} on {shown}: set attributes of self alone")
        elif accessor in SETTERS and name == "__class__":
            self._fault(self.patches, node, f"{accessor} of __class__: build what is wanted from the start")
        elif name is not None:
            if reach := reach_of_name(name):
                self._fault(self.names, node, reach.told(f"{accessor} of {name}"))
            self._path(node, (f"{path}.{name}" for path in paths))
        elif accessor != "hasattr" and (paths or may_be_forbidden(key, is_self)):
            words = f"{accessor} on {shown} of a name made at run time reaches anything: {BY_NAME.instead}"
            self._fault(self.names, node, words)
        self._read(target)
        self._visit([key, *rest, *node.keywords])

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if isinstance(value, str):
            self._text(node, value)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if text := constant(node):
            self._text(node, text)
        self.generic_visit(node)

    def _text(self, node: ast.expr, text: str) -> None:
        """Text that is the name of something out of bounds, or has a field {x.name} for it."""
        if is_special(text) or text in FORBIDDEN_NAMES[FRAMES]:
            reach = reach_of_name(text)
            assert reach is not None
            self._fault(self.names, node, reach.told(f"the text {text!r}"))
        for name, field in fields(text):
            if reach := reach_of_name(name):
                self._fault(self.names, node, reach.told(f"{name} in the format {field[:40]!r}"))

    def _annotation(self, node: ast.expr) -> None:
        """A type; text in it is an expression that some functions evaluate."""
        self.visit(node)
        for part in ast.walk(node):
            text = part.value if isinstance(part, ast.Constant) else None
            inside = expression(text) if isinstance(text, str) else None
            if inside is not None and not isinstance(inside, ast.Name):
                for piece in ast.walk(inside):
                    ast.copy_location(piece, part)
                self.visit(inside)

    # Assignments to what was imported: they would change the trainer, which runs in the same process

    def _patch(self, node: ast.Attribute | ast.Subscript) -> None:
        for path in sorted(self.scopes.paths(node)):
            words = f"assignment to {path}, which was imported: make a class or function of your own"
            self._fault(self.patches, node, words)
        if isinstance(node, ast.Attribute) and node.attr == "__class__":
            self._fault(self.patches, node, "assignment to __class__: build what is wanted from the start")
        match node.value:
            case ast.Call(func=ast.Name(id="type"), args=[of]) | ast.Attribute(value=of, attr="__class__"):
                if not self.scopes.is_self(of):
                    words = f"assignment to the class of {ast.unparse(of)[:40]}: it may be one of torch's"
                    self._fault(self.patches, node, words)

    def _fault(self, faults: dict[int, str], node: ast.AST, words: str) -> None:
        line: int = node.lineno  # type: ignore[attr-defined]
        faults.setdefault(line, words)


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]

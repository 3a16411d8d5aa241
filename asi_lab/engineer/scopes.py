"""Which names a source binds where, and what that was imported they stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

Paths = frozenset[str]
"""Dotted paths of what was imported; empty for what is the source's own."""
NOTHING: Paths = frozenset()
MOST_PATHS = 16
"""How many things one name is followed to; beyond them no honest source goes."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Inner = Function | ast.Lambda | ast.ClassDef | Comprehension


class Scope:
    """The names that a module, class, function or comprehension binds, and what of it they stand for."""

    def __init__(self, node: ast.AST, is_method: bool, parameters: dict[str, Paths]) -> None:
        self.own = list(own_nodes(node))
        self.is_class = isinstance(node, ast.ClassDef)
        self.is_certain = not isinstance(node, ast.Module | ast.ClassDef)
        """What is bound here is never looked up elsewhere, even where it has no value yet."""
        self.of_module = {name for part in self.own if isinstance(part, ast.Global) for name in part.names}
        outer = {name for part in self.own if isinstance(part, ast.Nonlocal) for name in part.names}
        bound = {name for part in self.own for name in bound_names(part)} - self.of_module - outer
        self.names = dict.fromkeys(bound, NOTHING) | parameters
        self.has_self = is_method and "self" not in bound
        """`self` is the object of a method here, and stays so."""


class Scopes:
    """The scopes around the place that is being read, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Scope] = []

    def enter(self, node: ast.AST) -> None:
        """Go into the scope that a node opens."""
        in_class = bool(self.stack) and self.stack[-1].is_class
        parameters = self._parameters(node.args) if isinstance(node, Function | ast.Lambda) else {}
        scope = Scope(node, in_class and _takes_self(node), parameters)
        self.stack.append(scope)
        for _ in range(2):  # a name may stand for another one
            for part in scope.own:
                for name, paths in _meanings(part, self):
                    if name in scope.names:
                        scope.names[name] = _union((scope.names[name], paths))

    def leave(self) -> None:
        """Go back to the scope around it."""
        self.stack.pop()

    def keeps(self, name: str) -> bool:
        """Whether the innermost scope binds a name that can be said as a plain name alone."""
        return name in self.stack[-1].names and not self.stack[-1].is_class

    def binding(self, name: str) -> Scope | None:
        """The scope in which a name is looked up from here; None where only builtins are left."""
        for scope in reversed([s for s in self.stack[:-1] if not s.is_class] + self.stack[-1:]):
            if name in scope.of_module:
                scope = self.stack[0]
            if name in scope.names or scope is self.stack[0]:
                return scope if name in scope.names else None
        return None

    def is_builtin(self, name: str) -> bool:
        """Whether a name may be looked up among the builtins."""
        found = self.binding(name)
        return found is None or not found.is_certain

    def is_self(self, node: ast.expr) -> bool:
        """Whether an expression is `self`, the object of the method around it."""
        found = self.binding("self") if isinstance(node, ast.Name) and node.id == "self" else None
        return found is not None and found.has_self

    def paths(self, node: ast.expr) -> Paths:
        """What an expression may stand for that was imported, as `name`, `name.attribute`, `name[...]` or a
        choice between such."""
        match node:
            case ast.Name(id=name):
                found = self.binding(name)
                return NOTHING if found is None else found.names[name]
            case ast.Attribute(value=value, attr=attribute):
                return frozenset(f"{path}.{attribute}" for path in self.paths(value))
            case ast.Subscript(value=ast.Tuple() | ast.List() | ast.Dict() as literal):
                return self.elements(literal)
            case ast.Subscript(value=value) | ast.NamedExpr(value=value) | ast.Starred(value=value):
                return self.paths(value)
            case ast.IfExp(body=one, orelse=other):
                return _union((self.paths(one), self.paths(other)))
            case ast.BoolOp(values=values):
                return _union(self.paths(value) for value in values)
            case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]):
                return frozenset(f"{path}.{name}" for path in self.paths(value))
        return NOTHING

    def _parameters(self, arguments: ast.arguments) -> dict[str, Paths]:
        """The arguments of a function, and what their defaults stand for in the scope around it."""
        positional = [*arguments.posonlyargs, *arguments.args]
        rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
        named = [*positional, *arguments.kwonlyargs]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
        defaults += [*arguments.defaults, *arguments.kw_defaults]
        known = {
            argument.arg: NOTHING if default is None else self.paths(default)
            for argument, default in zip(named, defaults, strict=True)
        }
        return known | {argument.arg: NOTHING for argument in rest}

    def elements(self, node: ast.expr) -> Paths:
        """What the elements of a tuple, list, set or dictionary that is written out may stand for."""
        match node:
            case ast.Tuple(elts=values) | ast.List(elts=values) | ast.Set(elts=values):
                return _union(self.paths(value) for value in values)
            case ast.Dict(values=values):
                return _union(self.paths(value) for value in values)
        return NOTHING


def _union(found: Iterable[Paths]) -> Paths:
    together = NOTHING.union(*found)
    return together if len(together) <= MOST_PATHS else frozenset(sorted(together)[:MOST_PATHS])


def _takes_self(node: ast.AST) -> bool:
    """Whether what stands in a class is a method with `self`."""
    if not isinstance(node, Function):
        return False
    positional = [*node.args.posonlyargs, *node.args.args]
    is_static = any(isinstance(part, ast.Name) and part.id == "staticmethod" for part in node.decorator_list)
    has_default = len(node.args.defaults) == len(positional)
    return bool(positional) and positional[0].arg == "self" and not is_static and not has_default


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, without those of the scopes inside and what is computed outside of it."""
    match scope:
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            yield from scope.generators
            for part in scope.generators:
                yield from ast.walk(part.target)
            return
        case ast.Lambda(body=expression):
            waiting: list[ast.AST] = [expression]
        case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            waiting = [*scope.body]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Comprehension):
            yield from _assigned_inside(node)
        elif not isinstance(node, Inner):
            waiting += ast.iter_child_nodes(node)


def _assigned_inside(comprehension: ast.AST) -> Iterator[ast.AST]:
    """What := binds in a comprehension, which is a name of the scope around it."""
    for node in ast.iter_child_nodes(comprehension):
        if isinstance(node, ast.NamedExpr):
            yield node
            yield node.target
        if not isinstance(node, ast.Lambda):
            yield from _assigned_inside(node)


def bound_names(node: ast.AST) -> list[str]:
    """The names that a node binds in its scope."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name.partition(".")[0] for alias in aliases]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def _meanings(node: ast.AST, scopes: Scopes) -> Iterator[tuple[str, Paths]]:
    """Names that a node makes stand for something imported."""
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                root = alias.name.partition(".")[0]
                yield alias.asname or root, frozenset({alias.name if alias.asname else root})
        case ast.ImportFrom(module=module, names=aliases):
            for alias in aliases:
                yield alias.asname or alias.name, frozenset({f"{module}.{alias.name}"})
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _assigned(target, value, scopes)
        case (
            ast.AnnAssign(target=target, value=ast.expr() as value)
            | ast.NamedExpr(target=target, value=value)
        ):
            yield from _assigned(target, value, scopes)
        case ast.Match(subject=subject, cases=cases):
            for case in cases:
                if isinstance(case.pattern, ast.MatchAs) and case.pattern.name and not case.pattern.pattern:
                    yield case.pattern.name, scopes.paths(subject)
        case (
            ast.For(target=target, iter=values)
            | ast.AsyncFor(target=target, iter=values)
            | ast.comprehension(target=target, iter=values)
        ):
            for name in _names(target):
                yield name, scopes.elements(values)


def _assigned(target: ast.expr, value: ast.expr, scopes: Scopes) -> Iterator[tuple[str, Paths]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, scopes.paths(value)
        case ((ast.Tuple(elts=targets) | ast.List(elts=targets)), (ast.Tuple() | ast.List())) if not any(
            isinstance(part, ast.Starred) for part in (*targets, *value.elts)
        ):
            for part, given in zip(targets, value.elts, strict=False):
                yield from _assigned(part, given, scopes)
        case ((ast.Tuple() | ast.List()), _):
            for name in _names(target):
                yield name, scopes.elements(value)


def _names(target: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]

"""What the static checks refuse, what they let pass, and what they cannot see."""

from __future__ import annotations

import math
import random
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import einops
import pytest
import torch
from torch import nn

from asi_lab.engineer.contract import check_source
from asi_lab.engineer.names import COSTLY, OTHERS, reach_of_path
from asi_lab.researcher.grammar import Genome, is_valid, render
from asi_lab.researcher.grammar.genome import GENES
from asi_lab.scoring import references
from asi_lab.trial.model import load_architecture
from tests.zoo import style

GOOD = references.source("delta_net")
END = len(GOOD.splitlines())


def faults(code: str) -> dict[str, str]:
    return {check.name: check.detail for check in check_source(code) if not check.passed}


EVASIONS = {
    # a module under another name
    "through a function": "import typing\ndef same(x): return x\nsame(typing).sys.modules",
    "in a tuple": "a, b = torch, 1\na.load('x')",
    "in a list": "[torch][0].load('x')",
    "in a dictionary": "{'a': torch}['a'].load('x')",
    "by a walrus": "(t := torch).load('x')",
    "by a walrus in a default": "def f(x=(t := torch)): pass\nt.load('x')",
    "by a choice": "(torch if GOOD else nn).load('x')",
    "by a loop": "for m in (torch,):\n    m.load('x')",
    "by a default": "def f(m=torch):\n    m.load('x')",
    "by a global": "def f():\n    global t\n    t = torch\nf()\nt.load('x')",
    "by an import in a class": "class A:\n    import torch as t\nA.t.load('x')",
    "by an attribute of a class": "class A:\n    t = torch\nA.t.load('x')",
    "by an attribute": "class A: pass\nA.t = torch",
    "held by another": "nn.functional.torch.load('x')",
    "held by einops": "import einops.layers.torch\neinops.layers.torch.torch.load('x')",
    "held by typing": "from typing import sys",
    "held by dataclasses": "import dataclasses\ndataclasses.sys.modules",
    "of the lab": "import asi_lab.kernels\nasi_lab.records.Check",
    "in a failed lookup": "try:\n    torch.nope\nexcept AttributeError as e:\n    e.obj.os",
    # names said otherwise
    "match keyword": "match GOOD:\n    case object(__globals__=g): pass",
    "match mapping": "match GOOD:\n    case {'__globals__': g}: pass",
    "match arguments": "class A:\n    __match_args__ = ('sys',)",
    "format": "'{0.__globals__}'.format(nn.Linear)",
    "format_map": "'{m.f_globals}'.format_map({'m': 1})",
    "format in two parts": "('{0.__glo' + 'bals__}').format(nn.Linear)",
    "format of a doubled brace": "f'{{0.__globals__}}'.format(nn.Linear)",
    "format specification": "f'{1:{nn.Linear.__dict__}}'",
    "getattr of two parts": "getattr(nn, '__di' + 'ct__')",
    "getattr of a variable": "def f(m, name):\n    return getattr(m, name)",
    "getattr of an f-string": "def f(m, a):\n    return getattr(m, f'{a}s')",
    "getattr as a value": "list(map(getattr, [nn], ['x']))",
    "getattr unpacked": "getattr(*[nn, 'x'])",
    "getattr of a name turned round": "getattr(nn, '__tcid__'[::-1])",
    "attrgetter": "import typing\ntyping.operator.attrgetter('sys')",
    "keywords": "type('A', (), dict(__getattr__=print))",
    "dictionary of a type": "type('A', (), {'__getattr__': print})",
    "bytes": "b'__globals__'.decode()",
    "class body": "class A:\n    __getattr__ = print",
    "rest of a match": "match GOOD:\n    case {**__builtins__}: pass",
    "alias of an import": "from math import pi as __builtins__",
    "full width": "torch.ｏｓ",
    "full width in an f-string": "f'{torch.ｏｓ}'",
    "mathematical letters": "𝐞𝐯𝐚𝐥('1')",
    "Cyrillic": "tоrch = 1",
    # methods that run when nobody calls them
    "__del__": "class A:\n    def __del__(self): pass",
    "__reduce__": "class A:\n    def __reduce__(self): return (print, ())",
    "__init_subclass__": "class A:\n    def __init_subclass__(cls): pass",
    "__class_getitem__": "class A:\n    def __class_getitem__(cls, key): pass",
    "__set_name__": "class A:\n    def __set_name__(self, owner, name): pass",
    "__get__": "class A:\n    def __get__(self, owner, kind): pass",
    "__torch_function__": "class A(torch.Tensor):\n    def __torch_function__(self, *a): pass",
    "__getattribute__": "class A:\n    def f(self):\n        return super().__getattribute__('x')",
    "metaclass": "class A(metaclass=type): pass",
    # builtins
    "own name elsewhere": "def other(eval): pass\neval('1')",
    "own name perhaps": "if False:\n    open = None\nopen('x')",
    "own name in a class": "def f():\n    class A:\n        open = 1\n    open('x')",
    "own name in a default": "def f(a=0 and (open := 1)):\n    open('x')",
    "own name outside, then global": "def f(open):\n    def g():\n        global open\n        open('x')",
    "decorator": "@exec\ndef f(): pass",
    "handed on": "o = open\no('x')",
    # text that is run
    "annotation": "def f(x: 'torch.os.system(1)'): pass",
    "annotation inside": "from typing import Optional\ndef f(x: Optional['torch.os']): pass",
    "type hints": "import typing\ntyping.get_type_hints(nn.Linear)",
    "forward reference": "import typing\ntyping.get_args(typing.Optional['1'])[0]._evaluate({}, {}, set())",
    "timer": "from torch.utils.benchmark import Timer",
    "dataclass": "import dataclasses\ndataclasses._create_fn('f', [], ['import os'])",
    "TorchScript": "torch.jit.CompilationUnit('def f(): pass')",
    # frames and graphs
    "generator": "def f(): yield\nf().gi_frame",
    "coroutine": "async def f(): pass\nf().cr_frame",
    "traceback": "try:\n    1 / 0\nexcept Exception as e:\n    e.__traceback__",
    "closure": "def f(g):\n    return g.cell_contents",
    "graph": "def f(x):\n    return x.grad_fn.saved_tensors",
    # files
    "array to a file": "torch.zeros(3).numpy().tofile('x')",
    "storage of a file": "torch.UntypedStorage.from_file('x')",
    # the trainer
    "hook of every optimizer": "torch.optim.optimizer.register_optimizer_step_pre_hook(print)",
    "class of a value": "type(nn.Linear(1, 1)).forward = None",
    "class of a part": "class A:\n    def f(self):\n        self.out.__class__.forward = None",
    "another class": "def f(x):\n    x.__class__ = nn.Linear",
    "all of a tuple": "for c in (nn.Linear, nn.Embedding):\n    c.forward = None",
    "capture of a match": "match nn.Linear:\n    case c:\n        c.forward = None",
    "target of with": "with torch.no_grad() as nn.Linear.forward: pass",
    "setattr on an argument": "def f(m):\n    setattr(m, 'forward', None)",
    "setattr on a false self": "def f(self):\n    setattr(self, 'forward', None)\nf(nn.Linear)",
    "setattr on a new self": "class A:\n    def f(self):\n        self = nn\n        setattr(self, 'x', 1)",
    "setattr, static": "class A:\n    @staticmethod\n    def f(self):\n        setattr(self, 'x', 1)",
    "setattr on a second self": "class A:\n    def f(x, self):\n        setattr(self, 'x', 1)",
    "setattr on many selves": "class A:\n    def f(*self):\n        setattr(self, 'x', 1)",
    "setattr on a default self": "class A:\n    def f(self=nn.Linear):\n        setattr(self, 'x', 1)",
    "setattr in a lambda": "class A:\n    f = lambda self: setattr(self, 'x', 1)",
    "setattr of the class": "class A:\n    def f(self):\n        setattr(self, '__class__', nn.Linear)",
    "self bound from within": "class A:\n    def f(self):\n        def g():\n            nonlocal self",
    "object.__setattr__": "object.__setattr__(nn.Linear, 'forward', None)",
    "settings": "torch.set_anomaly_enabled(True)",
    "generator of all": "torch.default_generator.manual_seed(1)",
    "second class": "class DeltaNet(nn.Module): pass",
    "class bound by a function": "def f():\n    global DeltaNet\n    DeltaNet = nn.Linear\nf()",
}


@pytest.mark.parametrize("code", EVASIONS.values(), ids=EVASIONS)
def test_an_evasion_is_refused_at_its_line(code):
    lines = [check.line for check in check_source(f"{GOOD}{code}\n") if not check.passed]
    assert lines
    assert all(line is not None and line > END for line in lines)


LIMITS = {
    "a helper that assigns to an attribute of its argument": "def f(c):\n    c.forward = None\nf(nn.Linear)",
    "a class that was put into a container or an attribute": "a = [nn.Linear]\na[0].forward = None",
    "an object that an exception carries": "try:\n    torch.x\nexcept Exception as e:\n    e.obj.load('x')",
    "a method called with another object as `self`": (
        "class A:\n    def f(self, k):\n        return getattr(self, k)\n"
        "A.f(nn.Linear, '__globals' + 2 * '_')"
    ),
    "text put together while it runs": "'{{0.{}}}'.format(''.join(['__glo', 'bals__'])).format(nn.Linear)",
}


@pytest.mark.parametrize(("words", "code"), LIMITS.items(), ids=LIMITS)
def test_what_the_lint_cannot_see_is_said_in_the_documentation(words, code):
    assert faults(f"{GOOD}{code}\n") == {}
    documentation = Path(__file__).parents[2] / "docs/preflight.md"
    assert words in " ".join(documentation.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("entry", style(), ids=lambda entry: entry.name)
def test_what_language_models_write_passes_and_runs(entry, tmp_path):
    assert faults(entry.source) == {}
    assert faults(entry.source.replace("\n", "\r\n")) == {}
    path = tmp_path / "architecture.py"
    path.write_text(entry.source, encoding="utf-8")
    layer = load_architecture(path)(d_model=32, num_heads=2)
    with torch.no_grad():
        assert layer(torch.randn(2, 33, 32))[0].shape == (2, 33, 32)


def test_references_and_what_the_grammar_writes_pass():
    rng, genomes = random.Random(1), list[Genome]()
    while len(genomes) < 30:
        genome = Genome(**{gene: rng.choice(values) for gene, values in GENES.items()})
        genomes += [genome] if is_valid(genome) is None else []
    written = [render(genome, "delta_net_written") for genome in genomes]
    sources = [*map(references.source, references.names()), *written]
    assert [found for found in map(faults, sources) if found] == []


def test_what_the_libraries_offer_is_not_taken_for_other_modules():
    found = []
    for space in (
        torch,
        torch.Tensor,
        nn,
        nn.functional,
        nn.init,
        nn.Module,
        torch.linalg,
        torch.fft,
        math,
        einops,
    ):
        root = space.__module__ + "." + space.__name__ if isinstance(space, type) else space.__name__
        public = [name for name in dir(space) if not name.startswith("_")]
        functions = [name for name in public if not isinstance(getattr(space, name), ModuleType)]
        found += [f"{root}.{name}" for name in functions if reach_of_path(f"{root}.{name}") is OTHERS]
    assert found == ["torch.Tensor.numpy"]
    folder = Path(str(find_spec("fla").submodule_search_locations[0]))
    modules = [
        ".".join(file.relative_to(folder.parent).with_suffix("").parts) for file in folder.rglob("*.py")
    ]
    refused = [module for module in modules if reach_of_path(module) not in (None, COSTLY)]
    assert len(modules) > 100
    assert refused == []


def test_the_verdict_names_the_line_the_name_and_what_to_use():
    code = GOOD + "import typing\n\n\ndef f(m):\n    setattr(m, 'x', 1)\n    return typing.sys, m.f_back\n"
    code += "x = torch.load('x')\n" * 9
    found = faults(code)
    assert found["patching"] == f"line {END + 5}: setattr on m: set attributes of self alone"
    assert found["names"] == (
        f"line {END + 6}: typing.sys is out of bounds: it reaches the interpreter; use torch, math and the "
        f"arguments; if the name is your own, choose another; "
        f"also line {', '.join(str(END + n) for n in range(7, 12))} and 4 more"
    )


def test_many_meanings_of_one_name_are_read_in_time():
    doubling = "".join(f"x{i + 1} = x{i}.c if x{i} else x{i}.d\n" for i in range(200))
    assert faults(f"{GOOD}x0 = nn\n{doubling}") == {}
    holes = "".join(f"{{a{i}}}" for i in range(60))
    assert faults(f"{GOOD}def f(m):\n    return getattr(m, f'{holes}zz')\n") == {}

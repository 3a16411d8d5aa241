"""What the source of a candidate may import and name: the lists, and what to use instead.

They stop accidents, cheap tricks and models that reach for the trainer. They are no boundary: whoever wants
to gets around lists of names. What holds is the confinement of the trial process.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED_IMPORTS = (
    *("__future__", "torch", "einops", "math", "typing", "dataclasses", "asi_lab.kernels", "fla"),
)


class Reached(NamedTuple):
    """Something that a layer has no use for: what it is, and what to use instead."""

    what: str
    instead: str

    def told(self, what: str) -> str:
        """The verdict on something that reaches it."""
        return f"{what} is out of bounds: it reaches {self.what}; {self.instead}"


FILES = Reached("files", "keep what must last in parameters and buffers")
PROCESSES = Reached("processes and networks", "compute from the inputs and parameters alone")
INTERPRETER = Reached(
    "the interpreter", "use torch, math and the arguments; if the name is your own, choose another"
)
INTERNALS = Reached("the insides of a library", "use its public functions, such as torch.compiler.disable")
OBJECTS = Reached("the insides of objects", "use the plain call, operator or assignment that it stands for")
FRAMES = Reached("running code and its frames", "hand over what is needed as arguments")
CLASSES = Reached("every class of the process", "call super() or name the class")
TEXT = Reached("text that is run as code", "write the code out")
SETTINGS = Reached("settings of the whole process", "pass dtype, device or generator where a tensor is made")
NATIVE = Reached("native code", "use torch's operations and asi_lab.kernels")
HOOKS = Reached("what others compute", "compute in forward, or in a torch.autograd.Function")
LAB = Reached("the lab's own code", "use asi_lab.kernels")
COSTLY = Reached("attention whose cost no counter sees", "use asi_lab.kernels")
OTHERS = Reached("other modules", f"import what you use by its own name, from {', '.join(ALLOWED_IMPORTS)}")
BY_NAME = Reached("attributes by names made at run time", "use nn.ModuleList, nn.ModuleDict or a dictionary")

ALLOWED_PATHS = _words(
    "torch.__version__ torch.set_grad_enabled torch.autograd.set_grad_enabled torch._assert torch._foreach_* "
    "torch._higher_order_ops torch.utils.checkpoint torch.nn.modules.module.Module asi_lab.kernels "
    "einops.layers.torch"
)
"""What is allowed below what is not, without the other modules that it holds."""

FORBIDDEN_PATHS: dict[Reached, tuple[str, ...]] = {
    FILES: (
        *("torch.load", "torch.save", "torch.hub", "torch.package", "torch.serialization", "torch.storage"),
        *("torch.jit.load", "torch.jit.save", "torch.export", "torch.onnx", "torch.utils.data"),
        *("torch.compiler.load_*", "torch.compiler.save_*", "torch.cuda.tunable"),
    ),
    NATIVE: (
        *("torch.utils.cpp_extension", "torch.ops.load_library", "torch.classes", "torch._C"),
        *("torch.library", "torch.cuda._compile_kernel"),
    ),
    PROCESSES: ("torch.multiprocessing", "torch.distributed"),
    TEXT: (
        *("torch.fx", "torch.utils.benchmark", "torch.jit.frontend", "torch.jit.annotations", "torch.jit._*"),
        *("torch.testing._*", "dataclasses.make_dataclass", "dataclasses._*"),
    ),
    HOOKS: (
        *("torch.overrides", "torch.utils._python_dispatch", "torch.nn.modules.module"),
        "torch.autograd.graph",
    ),
    SETTINGS: (
        *("torch.manual_seed", "torch.seed", "torch.random", "torch.backends", "torch.set_*"),
        *("torch.use_deterministic_algorithms", "torch.autograd.set_*", "torch.compiler.set_*"),
        *("torch.cuda.set_*", "torch.cuda.manual_seed*", "torch.cuda.random", "torch.utils.deterministic"),
        *("torch.default_generator", "torch.cuda.default_generators"),
    ),
    LAB: ("asi_lab.*",),
    COSTLY: ("fla.ops.attn", "fla.layers.attn", "fla.ops.nsa", "fla.layers.nsa"),
    INTERNALS: ("torch._*", "torch.utils.*", "torch.compiler._*", "typing._*", "einops._*"),
}
"""Dotted paths of what is imported, with everything below them; a star stands for the rest of a name. The
first that fits is told."""

FORBIDDEN_NAMES: dict[Reached, frozenset[str]] = {
    INTERPRETER: _words(
        "sys os gc inspect importlib ctypes builtins posix pathlib shutil tempfile pickle marshal runpy "
        "pkgutil linecache atexit faulthandler tracemalloc _thread import_module exec_module load_module"
    ),
    PROCESSES: _words(
        "subprocess socket multiprocessing threading asyncio concurrent from_pretrained save_pretrained "
        "push_to_hub"
    ),
    FILES: _words("from_file fromfile tofile memmap _new_shared_filename _write_file load_library"),
    FRAMES: _words(
        "f_back f_builtins f_code f_globals f_lasti f_lineno f_locals f_trace tb_frame tb_lasti tb_next "
        "gi_code gi_frame gi_yieldfrom cr_await cr_code cr_frame cr_origin ag_await ag_code ag_frame "
        "co_code co_consts co_names co_varnames co_freevars co_cellvars co_filename cell_contents "
        "_getframe _current_frames currentframe CodeType FrameType FunctionType LambdaType MethodType "
        "ModuleType CellType settrace setprofile"
    ),
    CLASSES: frozenset({"mro"}),
    TEXT: _words(
        "ForwardRef _evaluate get_type_hints evaluate_forward_ref CompilationUnit run_path run_module"
    ),
    BY_NAME: frozenset({"attrgetter", "methodcaller", "getattr_static"}),
    HOOKS: _words(
        "TorchDispatchMode TorchFunctionMode saved_tensors_hooks grad_fn next_functions "
        "register_optimizer_step_pre_hook register_optimizer_step_post_hook register_module_forward_hook "
        "register_module_forward_pre_hook register_module_full_backward_hook "
        "register_module_full_backward_pre_hook register_module_parameter_registration_hook"
    ),
}
"""Names that are refused as attributes of anything, whoever it belongs to: no layer has a use for them."""

_REACH = {name: reach for reach, names in FORBIDDEN_NAMES.items() for name in names}

FORBIDDEN_BUILTINS: dict[str, Reached] = {
    **dict.fromkeys(("open", "input"), FILES),
    **dict.fromkeys(("exec", "eval", "compile"), TEXT),
    **dict.fromkeys(("globals", "locals", "vars"), FRAMES),
    **dict.fromkeys(("breakpoint", "exit", "quit", "help"), INTERPRETER),
}
"""Builtins that are refused, unless a function has a name of its own that is spelled so."""

ALLOWED_SPECIAL = _words(
    "__init__ __post_init__ __call__ __repr__ __str__ __len__ __bool__ __int__ __float__ __index__ "
    "__getitem__ __setitem__ __delitem__ __contains__ __iter__ __next__ __reversed__ __enter__ __exit__ "
    "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ "
    "__mul__ __rmul__ __imul__ __matmul__ __rmatmul__ __truediv__ __rtruediv__ __itruediv__ __floordiv__ "
    "__mod__ __pow__ __rpow__ __neg__ __pos__ __abs__ __invert__ __and__ __or__ __xor__ "
    "__name__ __qualname__ __class__ __doc__ __main__ __future__ __debug__ __slots__ __constants__ __all__ "
    "__version__ __author__ __license__ __copyright__"
)
"""Names with two underscores on both sides that layers and their helpers really use."""

COMMON_SPECIAL = (
    *("__dict__", "__globals__", "__builtins__", "__code__", "__closure__", "__self__", "__func__"),
    *("__base__", "__bases__", "__mro__", "__subclasses__", "__getattribute__", "__reduce__", "__import__"),
    *("__loader__", "__spec__", "__wrapped__", "__traceback__", "__module__", "__init_subclass__"),
)
"""The refused ones that names made at run time are compared with."""

MODULES = _words(
    "torch.accelerator torch.amp torch.autograd torch.autograd.function torch.autograd.functional "
    "torch.compiler torch.cpu torch.cuda torch.distributions torch.fft torch.func torch.functional torch.jit "
    "torch.linalg torch.masked torch.mps torch.nested torch.nn torch.nn.attention torch.nn.functional "
    "torch.nn.grad torch.nn.init torch.nn.modules torch.nn.parallel torch.nn.parameter torch.nn.utils "
    "torch.ops torch.optim torch.profiler torch.signal torch.sparse torch.special torch.testing torch.types "
    "torch.utils torch.utils.checkpoint torch.version torch.xpu einops.layers"
)
"""Paths of modules that can be reached without an import of their own."""

_OTHERS = (sys.stdlib_module_names | _words("torch einops fla triton numpy asi_lab")) - _words(
    "abc chunk profile random select signal trace types"
)
"""Modules that others hold as their attributes, but for names that torch and fla use for something else."""


def is_special(name: str) -> bool:
    """Whether Python gives a name a meaning of its own, and no layer uses it."""
    dunder = len(name) > 4 and name.startswith("__") and name.endswith("__")
    return dunder and name not in ALLOWED_SPECIAL


def reach_of_name(name: str) -> Reached | None:
    """What an attribute of that name reaches, whatever it is an attribute of; None where nothing."""
    return OBJECTS if is_special(name) else _REACH.get(name)


@lru_cache(maxsize=4096)
def reach_of_path(path: str) -> Reached | None:
    """What a dotted path of something imported reaches that is out of bounds; None where nothing."""
    _, *parts = path.split(".")
    if found := next(filter(None, map(reach_of_name, parts)), None):
        return found
    allowed = next((root for root in ALLOWED_PATHS if is_below(path, root)), None)
    if allowed is not None:
        parts = path[len(allowed) :].split(".")
    else:
        for reach, paths in FORBIDDEN_PATHS.items():
            if any(is_below(path, forbidden) for forbidden in paths):
                return reach
    return OTHERS if _OTHERS.intersection(parts) else None


def is_below(path: str, root: str) -> bool:
    """Whether a dotted path is `root` or below it; a star at the end of `root` stands for any rest."""
    if root.endswith("*"):
        return path.startswith(root[:-1])
    return path == root or path.startswith(root + ".")

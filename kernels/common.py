"""What the operations share: argument checks, the chunk layout, a stable triangular inverse.

Shape letters: `B` batch, `T` tokens, `H` heads, `K` key width, `V` value width, `C` tokens of a chunk,
`N` chunks of a sequence, `M = B * H` independent recurrences.
"""

import functools
import importlib.util
import os
from collections.abc import Iterable, Sized

import torch
from torch import Tensor
from torch.nn import functional

GPU_FORMS = ("triton", "fla")
"""Forms that Triton runs: ours, and those of flash-linear-attention."""


def choose(implementation: str, x: Tensor, forms: tuple[str, ...], *, cpu: str, gpu: str) -> str:
    """The form of an operation that shall run on `x`.

    Under "auto" that is `gpu` for a CUDA tensor of at most 32 bits where Triton is installed, and `cpu` for
    all else; any of `forms` may be asked for by name.

    Raises:
        ValueError: no form has that name, or it is a GPU's and there is none. Triton's interpreter
            (TRITON_INTERPRET=1) stands in for a GPU.
    """
    if implementation == "auto":
        return gpu if x.is_cuda and x.dtype != torch.float64 and _has_triton() else cpu
    if implementation not in forms:
        names = ", ".join(f"'{name}'" for name in ("auto", *forms))
        raise ValueError(f"implementation must be one of {names}; got {implementation!r}")
    if implementation in GPU_FORMS and not (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        raise ValueError(
            f"implementation {implementation!r} needs a tensor on a GPU; got one on {x.device}. "
            "Take 'auto', or set TRITON_INTERPRET=1 before the first use to run Triton's interpreter."
        )
    return implementation


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def describe(x: object) -> str:
    """What was found instead of what was expected: shape and type of a tensor, type of anything else."""
    if isinstance(x, Tensor):
        return f"{list(x.shape)} of {x.dtype}"
    return "None" if x is None else f"of type {type(x).__name__}"


def check_tensors(**tensors: object) -> None:
    """Raise ValueError, naming the argument, unless all are tensors of floating-point numbers."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError(f"{name} must be a tensor of floating-point numbers, got {describe(x)}")


def check_list(name: str, tensors: object) -> None:
    """Raise ValueError, naming the argument, unless it is a sequence of floating-point tensors."""
    if not isinstance(tensors, Sized) or not isinstance(tensors, Iterable) or _is_scalar(tensors):
        raise ValueError(f"{name} must be a list of tensors, got {describe(tensors)}")
    check_tensors(**{f"{name}[{i}]": x for i, x in enumerate(tensors)})


def check_eps(eps: object) -> None:
    """Raise ValueError for None, which stands where others' functions have their bias."""
    if eps is None:
        raise ValueError("eps must be a number, got None; there is no bias: add it to the result")


def _is_scalar(x: object) -> bool:
    return isinstance(x, Tensor) and x.dim() == 0


def is_silu(activation: str | None) -> bool:
    """Whether that is SiLU, also called swish, rather than none.

    Raises:
        ValueError: it is neither.
    """
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation must be None or 'silu', got {activation!r}")
    return activation is not None


def check_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None = None,
    **gates: Tensor,
) -> None:
    """Raise ValueError, naming the argument, unless q, k are `[B, T, H, K]`, v `[B, T, H, V]`, each gate
    `[B, T, H]` and the state `[B, H, K, V]`, all of floating-point numbers, none of them empty; with
    `cu_seqlens` `[N + 1]`, B must be 1 and the state `[N, H, K, V]`."""
    check_tensors(q=q, k=k, v=v, **gates)
    if q.dim() != 4 or 0 in q.shape:
        raise ValueError(f"q must be [B, T, H, K] and not empty, got {list(q.shape)}")
    B, T, H, K = q.shape
    if k.shape != q.shape:
        raise ValueError(f"k must have the shape of q, {[B, T, H, K]}, got {list(k.shape)}")
    if v.dim() != 4 or v.shape[:3] != q.shape[:3] or v.shape[3] == 0:
        raise ValueError(f"v must be [B, T, H, V] with [B, T, H] = {[B, T, H]}, got {list(v.shape)}")
    for name, gate in gates.items():
        if gate.shape != (B, T, H):
            raise ValueError(f"{name} must be [B, T, H] = {[B, T, H]}, got {list(gate.shape)}")
    N = count_sequences(B, cu_seqlens)
    if initial_state is None:
        return
    check_tensors(initial_state=initial_state)
    state = [N, H, K, v.shape[3]]
    if list(initial_state.shape) != state:
        letters = "[B, H, K, V]" if cu_seqlens is None else "[N, H, K, V]"
        raise ValueError(f"initial_state must be {letters} = {state}, got {list(initial_state.shape)}")


def check_decay(g: Tensor | None, k: Tensor) -> None:
    """Raise ValueError unless g is None, one log-decay a head or one a channel of k `[B, T, H, K]`."""
    if g is None:
        return
    check_tensors(g=g)
    if g.shape not in (k.shape[:3], k.shape):
        shapes = f"[B, T, H] or [B, T, H, K] with [B, T, H, K] = {list(k.shape)}"
        raise ValueError(f"g must be {shapes}, got {list(g.shape)}")


def count_sequences(B: int, cu_seqlens: Tensor | None) -> int:
    """The batch size, or the number N of sequences that `cu_seqlens` `[N + 1]` packs into a batch of one.

    Raises:
        ValueError: `cu_seqlens` is no vector of integers, or the batch is not of one.
    """
    if cu_seqlens is None:
        return B
    bounds = torch.is_tensor(cu_seqlens) and cu_seqlens.dim() == 1 and len(cu_seqlens) > 1
    if not bounds or cu_seqlens.dtype not in (torch.int32, torch.int64):
        found = describe(cu_seqlens)
        raise ValueError(f"cu_seqlens must be [N + 1] integers (int32 or int64), N at least 1, got {found}")
    if B != 1:
        raise ValueError(f"cu_seqlens needs all sequences packed into a batch of 1, got a batch of {B}")
    return len(cu_seqlens) - 1


def check_bounds(bounds: list[int], T: int) -> None:
    """Raise ValueError unless the values of a `cu_seqlens` cut T tokens into sequences."""
    if bounds[0] != 0 or bounds[-1] != T or bounds != sorted(bounds):
        raise ValueError(f"cu_seqlens must rise from 0 to T = {T} and never fall, got {bounds}")


def compute_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, float32 for all others."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def first_state(initial_state: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    """The state `[B, H, K, V]` a recurrence starts from, in the compute dtype; zeros where none is given."""
    if initial_state is not None:
        return initial_state.to(compute_dtype(v))
    B, _, H, V = v.shape
    return torch.zeros(B, H, k.shape[-1], V, dtype=compute_dtype(v), device=v.device)


def fit_chunk(chunk_size: int | None, v: Tensor) -> int:
    """Tokens of a chunk, a power of two: as asked, else 64 on a GPU (fewer launches) and 16 or 32 on a
    CPU (fewer products); less for a sequence that is shorter. `v` is `[B, T, H, V]`."""
    if chunk_size is None:
        small = 16 if v.shape[-1] <= 32 else 32
        chunk_size = small if v.device.type == "cpu" else 64
    if chunk_size < 1 or chunk_size & (chunk_size - 1):
        raise ValueError(f"chunk_size must be a power of two, got {chunk_size}")
    return min(chunk_size, 1 << (v.shape[1] - 1).bit_length())


def to_chunks(x: Tensor, chunk: int, out: Tensor | None = None) -> Tensor:
    """`[B, T, H, ...]` to contiguous `[N, M, C, ...]` in the compute dtype, zeros after the last token.

    With `out` (`[N, M, C, ...]`, any strides) the values are written there.
    """
    B, T, H, *rest = x.shape
    N = -(-T // chunk)
    if N * chunk != T:
        x = functional.pad(x, (0, 0) * (x.dim() - 2) + (0, N * chunk - T))
    x = x.reshape(B, N, chunk, H, *rest).transpose(0, 1).transpose(2, 3)
    if out is None:
        out = torch.empty(N, B * H, chunk, *rest, dtype=compute_dtype(x), device=x.device)
    out.view(N, B, H, chunk, *rest).copy_(x)
    return out


def from_chunks(x: Tensor, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """`[N, M, C, ...]` back to `[B, T, H, ...]`, with `shape` = (B, T, H)."""
    B, T, H = shape
    N, _, chunk, *rest = x.shape
    y = torch.empty(B, N, chunk, H, *rest, dtype=dtype, device=x.device)
    y.copy_(x.reshape(N, B, H, chunk, *rest).transpose(2, 3).transpose(0, 1))
    return y.view(B, N * chunk, H, *rest)[:, :T]


def add_product(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`out += a @ b` over the two leading dimensions, in one call."""
    out.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1))
    return out


def unit_lower_inverse(a: Tensor) -> Tensor:
    """`(I + a)^-1` for strictly lower triangular `a`: `[G, C, C]`, C a power of two.

    Block forward substitution: both diagonal halves by recursion (in one batch), the lower left block
    as `-T22 a21 T11`; blocks of 8 are solved directly. Unlike products of powers of `a` this stays
    accurate when keys are correlated.
    """
    G, chunk, _ = a.shape
    if chunk <= 8:
        eye = torch.eye(chunk, dtype=a.dtype, device=a.device).expand_as(a)
        solved: Tensor = torch.linalg.solve_triangular(a, eye, upper=False, unitriangular=True)
        return solved
    half = chunk // 2
    inner = unit_lower_inverse(torch.cat((a[:, :half, :half], a[:, half:, half:])))
    first, second = inner[:G], inner[G:]
    inverse = torch.zeros_like(a)
    inverse[:, :half, :half] = first
    inverse[:, half:, half:] = second
    inverse[:, half:, :half] = torch.bmm(second, torch.bmm(a[:, half:, :half], first)).neg_()
    return inverse

"""Time the chunked delta rule against the recurrent one, forward and backward, on this machine's CPU.

    python benchmarks/delta_rule.py [--threads 1] [--repeats 15]

All contenders run in one process on the same inputs, interleaved, so that a busy machine slows them alike.
`fla chunk` is the plain PyTorch reference of flash-linear-attention as installed, where it can be imported.
Prints a markdown table: median milliseconds of a forward and backward pass, thousand tokens a second, and
how often the chunked form runs while another runs once.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels import delta_rule, gated_delta_rule

SHAPES = ((4, 512, 4, 32), (4, 256, 4, 16), (4, 256, 4, 32), (1, 2048, 4, 64))
"""B, T, H and the width of keys and values."""

NAIVE_REPEATS = 3
"""Passes of the recurrent form, which takes seconds on the longest shape."""

Pass = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--repeats", type=int, default=15, help="passes of each fast contender (default 15)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    fla_chunk = load_fla_chunk()

    print(f"torch {torch.__version__}, threads {torch.get_num_threads()}, float32, forward + backward\n")
    print("| B, T, H, D | form | ms | k tokens/s | chunked is faster by |")
    print("|---|---|---:|---:|---:|")
    for shape in SHAPES:
        report(shape, contenders(shape, fla_chunk), arguments.repeats)


def load_fla_chunk() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """fla's chunked PyTorch reference (`[B, H, T, D]` inputs), or None where fla cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fla warns on import where there is no GPU
            from fla.ops.delta_rule.naive import delta_rule_chunkwise
    except (ImportError, RuntimeError) as error:
        print(f"fla is left out: {error}\n")
        return None
    chunkwise: Callable[..., tuple[Tensor, Tensor]] = delta_rule_chunkwise
    return chunkwise


def contenders(
    shape: tuple[int, int, int, int], fla_chunk: Callable[..., tuple[Tensor, Tensor]] | None
) -> dict[str, Pass]:
    """Forward passes by name, over the same leaves; the chunked delta rule comes first."""
    B, T, H, D = shape
    torch.manual_seed(0)
    q, k = (functional.normalize(torch.randn(B, T, H, D), dim=-1).requires_grad_() for _ in range(2))
    v = torch.randn(B, T, H, D, requires_grad=True)
    beta = torch.rand(B, T, H).requires_grad_()
    g = torch.rand(B, T, H).neg().requires_grad_()
    passes: dict[str, Pass] = {
        "chunked": lambda: delta_rule(q, k, v, beta)[0],
        "chunked, gated": lambda: gated_delta_rule(q, k, v, g, beta)[0],
        "recurrent": lambda: delta_rule(q, k, v, beta, implementation="naive")[0],
    }
    if fla_chunk is not None:
        heads_first = [x.transpose(1, 2) for x in (q, k, v, beta)]
        passes["fla chunk"] = lambda: fla_chunk(*heads_first)[0].transpose(1, 2)
    expected = passes["chunked"]()
    for name in passes.keys() - {"chunked, gated"}:
        torch.testing.assert_close(passes[name](), expected, rtol=1e-3, atol=1e-4, msg=f"{name} differs")
    return passes


def report(shape: tuple[int, int, int, int], passes: dict[str, Pass], repeats: int) -> None:
    """Time all passes in turns and print one row for each."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(repeats):
        for name, forward in passes.items():
            if name != "recurrent" or turn < NAIVE_REPEATS:
                seconds[name].append(timed(forward))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    tokens = shape[0] * shape[1]
    for name, median in medians.items():
        ratio = median / medians["chunked"]
        print(f"| {shape} | {name} | {1e3 * median:.1f} | {tokens / median / 1e3:.1f} | {ratio:.1f}x |")


def timed(forward: Pass) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    torch.autograd.backward(forward().sum())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

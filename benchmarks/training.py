"""Training speed of small language models on this machine's CPU: tokens a second, forward to optimizer step.

    python benchmarks/training.py [--threads 2] [--rounds 5] [--seconds 4] [--shapes 1.34M]

One process for each contender, all alive at once, measured in turns so that a busy machine slows them alike.
Everything but the layer's operations, the number format and the allocator is the same:

    recurrence     the delta rule one token at a time, fla's reference and ours
    fla            flash-linear-attention's chunked PyTorch reference, with torch's own convolution, norms and
                   cross-entropy; once as installed, once with the allocator settings of our trials
    ours           as a trial trains: fp32, bf16 (autocast), bf16 with compiled blocks
    two trials     two bf16 trials with one thread each, at the same time

Prints a markdown table: median tokens a second with the range over the rounds, ratios, and the share of the
rate of a large matrix product in the same number format that the model's size asks for (MFU).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.common import process
from asi_lab.lab.config import from_preset
from asi_lab.settings import ModelSettings, Train
from asi_lab.trial import model as language_model
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.train.meter import flops_per_token, matmul_rate
from asi_lab.trial.train.optimisation import Optimisation
from asi_lab.trial.train.ranks import Alone

ROOT = Path(__file__).parents[1]

CPU = torch.device("cpu")
SHAPES = {"micro": ("micro", {}, 1024), "mini": ("mini", {}, 2048), "1.34M": ("mini", {}, 4096)}
"""Preset, changes of its model, vocabulary."""

CONTENDERS = {
    "fla-recurrence-installed": "fla's recurrence, fp32, allocator as installed",
    "recurrence": "our recurrence, fp32",
    "fla-installed": "fla's reference, fp32, allocator as installed",
    "fla": "fla's reference, fp32",
    "ours-fp32": "ours, fp32",
    "ours-bf16": "ours, bf16",
    "ours-bf16-compiled": "ours, bf16, compiled",
}
YARDSTICKS = ("fla-recurrence-installed", "recurrence", "fla-installed", "fla")
TOGETHER = "two trials, bf16, one thread each"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=process.physical_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--profile", choices=list(SHAPES), help="tell where our bf16 step spends its time")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker, threads=arguments.threads)
        return
    if arguments.profile:
        profile(arguments.profile, arguments.threads)
        return
    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    print(f"{model.partition(':')[2].strip() or platform.processor()}, {arguments.threads} threads, ", end="")
    print(f"torch {torch.__version__}, Python {platform.python_version()}; all else idle is assumed")
    for shape in arguments.shapes:
        report(shape, arguments.threads, arguments.rounds, arguments.seconds)


def report(shape: str, threads: int, rounds: int, seconds: float) -> None:
    workers = {name: Worker(name, shape, threads) for name in CONTENDERS}
    pair = [Worker("ours-bf16", shape, 1) for _ in range(2)]
    everyone = [*workers.values(), *pair]
    ready = {name: worker.answer() for name, worker in workers.items()}
    for worker in pair:
        worker.answer()
    rates = {name: max(worker.rate() for _ in range(3)) for name, worker in workers.items()}
    speeds: dict[str, list[float]] = {name: [] for name in (*workers, TOGETHER)}
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.go(seconds)
            speeds[name].append(worker.answer()["tokens_per_second"])
        for worker in pair:
            worker.go(seconds)
        speeds[TOGETHER].append(sum(worker.answer()["tokens_per_second"] for worker in pair))
    for worker in everyone:
        worker.close()

    medians = {name: statistics.median(found) for name, found in speeds.items()}
    parameters = ready["ours-fp32"]["parameters"]
    compiling = ready["ours-bf16-compiled"]["compile_seconds"]
    print(
        f"\n**{shape}**: {parameters:,} parameters; compiling took {compiling:.0f} s, which is not counted\n"
    )
    heads = ["contender", "tokens/s", "range", *(f"over {name}" for name in YARDSTICKS), "MFU"]
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    for name, median in medians.items():
        low, high = min(speeds[name]), max(speeds[name])
        ratios = [median / medians[other] for other in YARDSTICKS]
        share = ready["ours-fp32"]["flops_per_token"] * median / rates.get(name, rates["ours-bf16"])
        cells = [f"{median:,.0f}", f"{low:,.0f}-{high:,.0f}", *(f"{x:.1f}x" for x in ratios), f"{share:.0%}"]
        print(f"| {CONTENDERS.get(name, name)} | {' | '.join(cells)} |")


class Worker:
    """A contender's process: waits for its turn."""

    def __init__(self, name: str, shape: str, threads: int) -> None:
        command = [sys.executable, __file__, "--worker", name, shape, "--threads", str(threads)]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def go(self, seconds: float) -> None:
        """Let it train for so long."""
        assert self.popen.stdin is not None
        print(seconds, file=self.popen.stdin, flush=True)

    def rate(self) -> float:
        """Operations a second of a large matrix product in its number format."""
        assert self.popen.stdin is not None
        print("rate", file=self.popen.stdin, flush=True)
        return self.answer()["matmul_rate"]

    def answer(self) -> dict[str, float]:
        """Wait for what it tells."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            sys.exit(
                f"a contender ended with status {self.popen.wait()}: {' '.join(map(str, self.popen.args))}"
            )
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        """Let it end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        self.popen.wait()


def profile(shape: str, threads: int) -> None:
    """Shares of our bf16 step: single operations by their own time, our operations with all they call."""
    optimisation, tokens, _ = prepare("ours-bf16", shape, threads)
    for _ in range(3):
        optimisation.step(tokens, 1e-3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(5):
            optimisation.step(tokens, 1e-3)
    rows = found.key_averages()
    total = sum(row.self_cpu_time_total for row in rows)
    ours = [row for row in rows if row.key.startswith("_") and not row.key.startswith("_to")]
    own = sorted(rows, key=lambda row: -row.self_cpu_time_total)[:10]
    print("| operation | with all it calls |\n|---|---:|")
    for row in sorted(ours, key=lambda row: -row.cpu_time_total):
        print(f"| {row.key} | {row.cpu_time_total / total:.0%} |")
    print("\n| operation | by itself |\n|---|---:|")
    for row in own:
        print(f"| {row.key} | {row.self_cpu_time_total / total:.0%} |")


def work(name: str, shape: str, threads: int) -> None:
    """Train steps for as many seconds as each line of standard input says."""
    optimisation, tokens, first = prepare(name, shape, threads)
    model, train = optimisation.model, optimisation.train
    tell(
        parameters=model.parameter_counts()[0],
        compile_seconds=first,
        flops_per_token=flops_per_token(model),
    )
    for line in sys.stdin:
        if line.strip() == "rate":
            dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
            tell(matmul_rate=matmul_rate(CPU, dtype))
        else:
            measure(optimisation, tokens, train, float(line))


def prepare(name: str, shape: str, threads: int) -> tuple[Optimisation, Tensor, float]:
    """A contender after its first step, its tokens, and the seconds of that step."""
    if not name.endswith("installed"):
        process.tune_allocator()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    preset, changes, vocabulary = SHAPES[shape]
    settings = from_preset(preset)
    precision = "bf16" if "bf16" in name else "fp32"
    train = msgspec.structs.replace(settings.train, precision=precision)
    model = build(name, msgspec.structs.replace(settings.model, **changes), vocabulary)
    optimisation = Optimisation(model, train, Alone())
    tokens = torch.randint(vocabulary, (train.batch, train.context + 1))
    started = time.perf_counter()
    if name.endswith("compiled"):
        model.compile_blocks()
    model.train()
    optimisation.step(tokens, 1e-3)
    first = time.perf_counter() - started
    return optimisation, tokens, first


def measure(optimisation: Optimisation, tokens: Tensor, train: Train, seconds: float) -> None:
    optimisation.step(tokens, 1e-3)  # its memory comes back to it
    steps, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or steps == 0:
        optimisation.step(tokens, 1e-3)
        steps += 1
    tell(tokens_per_second=steps * train.batch * train.context / passed)


def tell(**found: float) -> None:
    print(json.dumps(found), flush=True)


def build(name: str, model: ModelSettings, vocabulary: int) -> LanguageModel:
    """DeltaNet in the lab's language model, its operations replaced where the contender is not ours."""
    layer = load_architecture(ROOT / "lineage_repo/delta_net/architecture.py")
    operations: dict[str, Any] = layer.forward.__globals__
    assert {"delta_rule", "qkv_convolution", "rms_norm"} <= operations.keys(), "the layer calls others now"
    if name == "recurrence":
        ours = operations["delta_rule"]
        operations["delta_rule"] = lambda *a, **k: ours(*a, **k, implementation="naive")
    elif name.startswith("fla"):
        operations |= (theirs := fla_operations(recurrent="recurrence" in name))
        language_model.rms_norm = theirs["rms_norm"]
        LanguageModel.forward = plain_forward  # type: ignore[method-assign]
    return LanguageModel(layer, model, vocabulary)


def fla_operations(recurrent: bool) -> dict[str, Any]:
    """The layer's operations as fla's references and torch compute them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fla warns on import where there is no GPU
        from fla.ops.delta_rule.naive import delta_rule_chunkwise, delta_rule_recurrence

    rule = delta_rule_recurrence if recurrent else delta_rule_chunkwise

    def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> tuple[Tensor, None]:
        heads_first = (x.transpose(1, 2) for x in (q, k, v, beta))
        return rule(*heads_first)[0].transpose(1, 2), None

    def qkv_convolution(
        qkv: Tensor, weight: Tensor, bias: Tensor | None, num_heads: int, key_dim: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        width, length, keys = weight.shape[1], qkv.shape[1], num_heads * key_dim
        y = functional.conv1d(qkv.mT, weight[:, None], bias, padding=width - 1, groups=qkv.shape[2])
        y = functional.silu(y[..., :length]).mT
        parts = y.split([keys, keys, y.shape[2] - 2 * keys], dim=-1)
        q, k, v = (part.unflatten(-1, (num_heads, -1)) for part in parts)
        return l2_norm(q), l2_norm(k), v

    def l2_norm(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return functional.rms_norm(x, weight.shape, weight, eps)

    return {"delta_rule": delta_rule, "qkv_convolution": qkv_convolution, "rms_norm": rms_norm}


def plain_forward(self: LanguageModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The loss by torch's cross-entropy over all logits."""
    hidden, aux = self.hidden(tokens[:, :-1])
    logits = self.head(hidden).float()
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()), aux


if __name__ == "__main__":
    main()

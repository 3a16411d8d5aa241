"""A plain pre-norm language model around a candidate's layer.

    x = embed(ids)                                  [B, L, D]
    for each block:  x = x + mixer(norm(x));  x = x + mlp(norm(x))
    hidden = norm(x)                                [B, L, D]
    logits = hidden @ head.T                        [B, L, V]

Only the mixer comes from the candidate; everything else is the same for all candidates of a lab.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asi_lab.common import syntax
from asi_lab.common.randomness import keyed_seed
from asi_lab.kernels import linear_cross_entropy, rms_norm
from asi_lab.protocol import CLASS_NAME
from asi_lab.settings import ModelSettings


def load_architecture(path: Path) -> type[nn.Module]:
    """Execute an `architecture.py` and return its layer class. Only ever called in a trial.

    What is executed is the text that the static checks read, whatever encoding the file names, and tracebacks
    and `inspect` show that text, whatever becomes of the file.

    Raises:
        SyntaxError: the file is no source that the static checks let pass as text.
        AttributeError: the file does not define the class. Anything else the code raises.
    """
    name, code = str(path), syntax.decoded(path.read_bytes())
    program = syntax.program(code, name)
    module = _module_of(name)
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(program, module.__dict__)
    layer: type[nn.Module] = getattr(module, CLASS_NAME)
    return layer


def _module_of(file: str) -> ModuleType:
    """A new module for a file, where dataclasses and `inspect` look for it; another file's keeps its name."""
    names = chain(["architecture"], (f"architecture_{number}" for number in count(2)))
    name = next(name for name in names if getattr(sys.modules.get(name), "__file__", file) == file)
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = file
    return module


def build_layer(layer: type[nn.Module], settings: ModelSettings, index: int = 0) -> nn.Module:
    """One candidate layer at the lab's width, as the language model builds it."""
    return layer(
        d_model=settings.width,
        hidden_size=settings.width,
        num_heads=settings.heads,
        layer_idx=index,
    )


class RMSNorm(nn.Module):
    """Root-mean-square norm with a gain, over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return rms_norm(x, self.weight, self.eps)


def build_norm(settings: ModelSettings) -> nn.Module:
    """The preset's norm."""
    if settings.norm == "rms":
        return RMSNorm(settings.width, settings.norm_eps)
    return nn.LayerNorm(settings.width, settings.norm_eps)


class MLP(nn.Module):
    """SwiGLU, or two matrices with GELU between them."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        inner = max(8, round(settings.mlp_ratio * settings.width / 8) * 8)
        self.gated = settings.mlp == "swiglu"
        self.up = nn.Linear(settings.width, inner * (2 if self.gated else 1), bias=False)
        self.down = nn.Linear(inner, settings.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        if not self.gated:
            inner = F.gelu(self.up(x))
        else:
            gate, value = self.up(x).chunk(2, dim=-1)
            inner = F.silu(gate) * value
        down: Tensor = self.down(inner)
        return down


class Block(nn.Module):
    """Candidate layer and MLP, each behind a norm and beside a residual."""

    def __init__(self, layer: type[nn.Module], settings: ModelSettings, index: int) -> None:
        super().__init__()
        self.mixer_norm = build_norm(settings)
        self.mixer = build_layer(layer, settings, index)
        self.mlp_norm = build_norm(settings) if settings.mlp_ratio > 0 else None
        self.mlp = MLP(settings) if settings.mlp_ratio > 0 else None
        self.compiled: tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]] | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, L, D] -> [B, L, D] and the layer's auxiliary loss, if it has one."""
        normalise, add = self.compiled if self.compiled and self.training else (self.normalise, self.add)
        mixed, aux, _ = self.mixer(normalise(x))
        return add(x, mixed), aux

    def normalise(self, x: Tensor) -> Tensor:
        """The residual stream [B, L, D] -> what the layer is given [B, L, D]."""
        normed: Tensor = self.mixer_norm(x)
        return normed

    def add(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The residual stream [B, L, D] and what the layer made of it [B, L, D] -> the block's result."""
        x = x + mixed
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self.mlp(self.mlp_norm(x))
        return x


class LanguageModel(nn.Module):
    """The language model; see the module's docstring.

    With `recompute` the blocks keep nothing for backward but their inputs, and run again there
    (arXiv 1604.06174). Embedding, head and MLPs start from `shared_seed` and their own names, so that they
    are the same around every layer.
    """

    def __init__(
        self, layer: type[nn.Module], settings: ModelSettings, vocab_size: int, shared_seed: int = 0
    ) -> None:
        super().__init__()
        self.recompute = False
        self.embed = nn.Embedding(vocab_size, settings.width)
        self.blocks = nn.ModuleList(Block(layer, settings, i) for i in range(settings.layers))
        self.norm = build_norm(settings)
        self.head = nn.Linear(settings.width, vocab_size, bias=False)
        if settings.tie_embeddings:
            self.head.weight = self.embed.weight
        self._draw_shared(settings.init_std, shared_seed)

    def _draw_shared(self, std: float, seed: int) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2 and ".mixer." not in name and not parameter.is_meta:
                generator = torch.Generator(parameter.device).manual_seed(keyed_seed(seed, name))
                nn.init.normal_(parameter, std=std, generator=generator)

    def hidden(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [B, L] -> hidden states [B, L, D] and the sum of auxiliary losses (a scalar)."""
        return self.mix(self.embed(ids))

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded tokens [B, L, D] -> hidden states [B, L, D] and the sum of auxiliary losses (a scalar)."""
        residual, aux = self.through_blocks(x)
        return self.norm(residual), aux

    def residual(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> the residual stream behind the last block [B, L, D], before the final norm."""
        return self.through_blocks(self.embed(ids))[0]

    def through_blocks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded tokens [B, L, D] -> the residual stream [B, L, D] behind the last block, and the sum of
        auxiliary losses (a scalar)."""
        aux_total = x.new_zeros(())
        for block in self.blocks:
            if self.recompute and self.training:
                x, aux = checkpoint(block, x, use_reentrant=False)
            else:
                x, aux = block(x)
            if isinstance(aux, Tensor):
                aux_total = aux_total + aux
        return x, aux_total

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, L + 1] -> next-token loss in nats (mean) and auxiliary loss, both scalars."""
        hidden, aux = self.hidden(tokens[:, :-1])
        return linear_cross_entropy(hidden, tokens[:, 1:], self.head.weight), aux

    def compile_blocks(self) -> None:
        """Compile what the blocks do around their layers, for training alone.

        The layers stay as they are: code of language models is seldom traced whole, what is compiled is
        then the same for all candidates, and so found in the cache that the baselines left.
        """
        for block in self.blocks:
            assert isinstance(block, Block)
            # An RMS norm is one kernel as it is; PyTorch's layer norm takes several times the time it needs.
            plain = isinstance(block.mixer_norm, RMSNorm)
            normalise = block.normalise if plain else torch.compile(block.normalise, dynamic=False)
            block.compiled = normalise, torch.compile(block.add, dynamic=False)

    def mixers(self) -> tuple[nn.Module, ...]:
        """The candidate's layers, from the first block to the last."""
        return tuple(block.get_submodule("mixer") for block in self.blocks)

    def parameter_counts(self) -> tuple[int, int]:
        """All parameters, and those outside embedding and head (tied ones counted once)."""
        everything = sum(p.numel() for p in self.parameters())
        outside = {id(self.embed.weight): self.embed.weight, id(self.head.weight): self.head.weight}
        return everything, everything - sum(p.numel() for p in outside.values())


class _NoLayer(nn.Module):
    """Stands for a layer where only the rest of the model is counted."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__()


def count_parameters(layer: type[nn.Module], settings: ModelSettings, vocab_size: int) -> int:
    """Parameters of the whole language model; only one of the layers is in memory at a time."""
    with torch.device("meta"):
        everything, _ = LanguageModel(_NoLayer, settings, vocab_size).parameter_counts()
    return everything + sum(
        sum(p.numel() for p in build_layer(layer, settings, index).parameters())
        for index in range(settings.layers)
    )

"""Branches in ModuleList, ModuleDict and ParameterDict, built by comprehensions and closures."""
from typing import Callable

import torch
from torch import nn


def make_branch(width: int, kernel: int) -> nn.Module:
    def initialise(module: nn.Module, std: float = 0.02) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    branch = nn.Conv1d(width, width, kernel, padding=kernel - 1, groups=width)
    branch.apply(lambda module: initialise(module, std=kernel**-0.5))
    return branch


class Mixer(nn.Module):
    def __init__(self, width, heads, kernels=(3, 5, 9)):
        super().__init__()
        self.branches = nn.ModuleDict({f"k{k}": make_branch(width, k) for k in kernels})
        self.gains = nn.ParameterDict({name: nn.Parameter(torch.ones(width)) for name in self.branches})
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in kernels])
        self.post: Callable = lambda y, *rest, scale=1.0, **kw: y * scale

    def forward(self, x, attention_mask=None):
        y = torch.zeros_like(x)
        for (name, branch), norm in zip(self.branches.items(), self.norms, strict=True):
            y = y + norm(branch(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)) * self.gains[name]
        return self.post(y, scale=1 / len(self.branches))

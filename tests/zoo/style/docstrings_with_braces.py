r"""
Gated memory with per-head decay

.. math::
    S_{t} = \alpha_{t} S_{t-1} + \beta_{t} k_{t} v_{t}^{\top}, \quad o_{t} = \{S_{t}\}^{\top} q_{t} / \sqrt{d_{k}}

Config example: {"num_heads": 4, "gate": {"type": "sigmoid", "init": -2.0}, "layers": [{"id": 0}]}
Template: "{name}_{index:02d}.{suffix}", e.g. {self.name}, {x.shape[0]} or {cfg.model.width!r:>10}.
"""
import torch
from torch import nn


class Mixer(nn.Module):
    """Holds \\(\\sum_{i=1}^{n} w_{i} x_{i}\\); overrides __getattr__? No: see `nn.Module.__init__`."""

    NAME = "{kind}-{size:>4}"

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.name = self.NAME.format(kind="mem", size=width) + "{0[0]}-{1.real}".format([width], heads)
        self.gate = nn.Linear(width, width)

    def extra_repr(self) -> str:
        return f"name={self.name!r}, cost={self.gate.weight.numel() / 1e3:.1f}K, {{literal}} {heads if (heads := 2) else ''}"

    def forward(self, x, attention_mask=None):
        return x * torch.sigmoid(self.gate(x))

"""Initialisation by `apply`, under `no_grad`, with torch's own helper for fans."""
import math

import torch
from torch import nn
from torch.nn import init


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.log_decay = nn.Parameter(torch.empty(width))
        self.apply(self._init_weights)
        self.reset_parameters()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            fan_in, _ = init._calculate_fan_in_and_fan_out(module.weight)
            module.weight.data.uniform_(-(bound := 1 / math.sqrt(fan_in)), bound)
            if hasattr(module, "bias") and module.bias is not None:
                module.bias.data.zero_()
            module._is_hf_initialized = True

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.log_decay.copy_(torch.linspace(-3.0, 3.0, self.log_decay.numel()))
        self.log_decay._no_weight_decay = True
        with torch.no_grad():
            self.out_proj.weight.mul_(0.5).clamp_(-1, 1)

    def forward(self, x, attention_mask=None):
        u, g = self.in_proj(x).chunk(2, dim=-1)
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            y = torch.cumsum(u * torch.sigmoid(self.log_decay), 1) / (1 + torch.arange(x.shape[1], device=x.device))[:, None]
        return self.out_proj(y * torch.nn.functional.silu(g))

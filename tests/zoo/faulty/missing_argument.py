"""Fault: forward. An argument of the interface is missing."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class DeltaNet(nn.Module):
    def __init__(
        self,
        mode="chunk",
        d_model=None,
        hidden_size=1024,
        expand_k=1.0,
        expand_v=1.0,
        num_heads=4,
        use_beta=True,
        use_gate=False,
        use_short_conv=True,
        conv_size=4,
        conv_bias=False,
        allow_neg_eigval=False,
        layer_idx=None,
        qk_activation="silu",
        qk_norm="l2",
        norm_eps=1e-5,
        **kwargs,
    ):
        super().__init__()
        width = hidden_size if d_model is None else d_model
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(  # the fault
        self,
        hidden_states,
        attention_mask=None,
        past_key_values=None,
        use_cache=False,
        **kwargs,
    ):
        x = hidden_states
        if attention_mask is not None:
            x = x.masked_fill((attention_mask == 0)[..., None], 0.0)
        return self.out(short_convolution(x, self.filter, activation="silu")), None, past_key_values

# -*- coding: utf-8 -*-
"""The whole interface written out, with cache probing and options that are ignored, as published layers have it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange

if TYPE_CHECKING:
    from fla.models.utils import Cache


def build_feature_map(compiled: bool = False):
    def _elu_plus_one(x: torch.Tensor) -> torch.Tensor:
        return (F.elu(x, 1.0, False) + 1.0).to(x)

    @torch.compile(dynamic=False, mode="reduce-overhead")
    def _compiled(x: torch.Tensor) -> torch.Tensor:
        return _elu_plus_one(x)

    return _compiled


class DeltaNet(nn.Module):
    def __init__(
        self, mode="chunk", d_model=None, hidden_size=1024, expand_k=1.0, expand_v=1.0, num_heads=4,
        use_beta=True, use_gate=False, use_short_conv=True, conv_size=4, conv_bias=False,
        allow_neg_eigval=False, layer_idx=None, qk_activation="silu", qk_norm="l2", norm_eps=1e-5,
        *, fuse_hidden_mult: int = 2, **kwargs: Dict,
    ) -> None:
        super().__init__()
        if d_model is not None:
            hidden_size = d_model
        assert hidden_size % num_heads == 0, f"{hidden_size=} must be divisible by {num_heads=}"
        assert mode in ["chunk", "fused_chunk"], f"Not supported mode `{mode}`."
        self.layer_idx, self.num_heads = layer_idx, num_heads
        self.feature_map = build_feature_map() if mode == "fused_chunk" else F.silu
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        for key, value in kwargs.items():
            setattr(self, key, value)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: Optional[torch.Tensor] = None,
        past_key_values: Optional["Cache"] = None, use_cache: Optional[bool] = False,
        output_attentions: Optional[bool] = False, **kwargs: "Unpack[Dict]",
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor], Optional["Cache"]]:
        last_state = None
        if past_key_values is not None and self.layer_idx is not None and hasattr(past_key_values, "__getitem__"):
            last_state = past_key_values[self.layer_idx] if len(past_key_values) > self.layer_idx else None
        if last_state is not None and hasattr(past_key_values, "__setitem__"):
            past_key_values[self.layer_idx] = {"recurrent_state": last_state}
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask.to(hidden_states.dtype).unsqueeze(-1)
        q = rearrange(self.q_proj(hidden_states), "b l (h d) -> b l h d", h=self.num_heads)
        o = torch.sigmoid(q).flatten(-2) * self.v_proj(hidden_states)
        return o, None, past_key_values

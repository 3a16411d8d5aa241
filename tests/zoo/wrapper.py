"""What the loader appends to an entry: the candidate contract around the entry's `Mixer`."""

from typing import Any

import torch
from torch import nn


def zero_padding(x: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """`x` [B, L, D] with zeros where `attention_mask` [B, L] is 0."""
    return x if attention_mask is None else x.masked_fill((attention_mask == 0)[..., None], 0.0)


class DeltaNet(nn.Module):
    """One token-mixing layer, [B, L, D] to [B, L, D]; other arguments than the sizes change nothing."""

    def __init__(
        self,
        mode: str = "chunk",
        d_model: int | None = None,
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_heads: int = 4,
        use_beta: bool = True,
        use_gate: bool = False,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "silu",
        qk_norm: str = "l2",
        norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        width = hidden_size if d_model is None else d_model
        if width % num_heads:
            raise ValueError(f"width {width} must divide by {num_heads} heads")
        self.mixer = Mixer(width, num_heads)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, Any]:
        result = self.mixer(hidden_states, attention_mask)
        output, aux = result if isinstance(result, tuple) else (result, None)
        return output, aux, past_key_values

"""One projection for each role, made and found by name."""
import torch
import torch.nn as nn


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_proj", nn.Linear(width, width, bias=False))
        for i in range(3):
            self.register_buffer(f"decay_{i}", torch.tensor(0.5 ** (i + 1)))
        self.kinds = ["query", "key", "value"]
        self.num_scales = 3

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = (getattr(self, f"{name}_proj")(x) for name in self.kinds)
        out = 0
        for i in range(self.num_scales):
            decay = getattr(self, "decay_%d" % i) + getattr(self, "decay_" + str(i)) * 0
            out = out + decay * torch.sigmoid(q) * k * v
        if hasattr(self, "out_proj") and getattr(self, "bias", None) is not None:
            out = out + self.bias
        return out

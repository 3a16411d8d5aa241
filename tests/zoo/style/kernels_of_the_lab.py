"""Two memories over the lab's kernels, mixed by a router with an entropy as auxiliary loss."""
import torch
import torch.nn as nn
from asi_lab.kernels import delta_rule, l2_norm, linear_attention, path_mix, rms_norm, short_convolution


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.H, self.K = heads, width // heads
        self.qkv, self.beta, self.g = nn.Linear(width, 3 * width), nn.Linear(width, heads), nn.Linear(width, heads)
        self.conv = nn.Parameter(torch.randn(3 * width, 4) / 2)
        self.router = nn.Linear(width, heads * 2)
        self.norm, self.out = nn.Parameter(torch.ones(self.K)), nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = [t.unflatten(-1, (self.H, self.K)) for t in short_convolution(self.qkv(x), self.conv).chunk(3, -1)]
        q, k = l2_norm(q), l2_norm(k)
        paths = delta_rule(q, k, v, self.beta(x).sigmoid())[0], linear_attention(q, k, v, g=nn.functional.logsigmoid(self.g(x)))[0]
        o, w, entropy = path_mix(paths, self.router(x).unflatten(-1, (self.H, 2)), routing="softmax", floor=0.05)
        return self.out(rms_norm(o, self.norm).flatten(-2)), -0.01 * entropy.mean()

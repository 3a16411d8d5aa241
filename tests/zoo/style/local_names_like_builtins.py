"""Short local names that builtins and modules have too: open gates, outputs os, features F, input and vars."""
import torch
import torch.nn.functional as F
from torch import nn


def gated(input, open, vars=None, type="sigmoid"):
    compile = open if type != "sigmoid" else open.sigmoid()
    return input * compile if vars is None else input * compile + vars


def shapes(x):
    B, L, F = x.shape
    return [B, L, F], F


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.gate, self.heads = nn.Linear(width, width), heads

    def forward(self, x, attention_mask=None):
        (batch, length, width), features = shapes(x)
        first, second = torch.chunk(x, 2, dim=-1)
        x = torch.cat([first, second], -1) + 0 * torch.select(x, 1, 0)[:, None]
        os, sys = [], x.unflatten(-1, (self.heads, -1))
        for head in sys.unbind(-2):
            os.append(F.normalize(head, dim=-1))
        open = self.gate(x)
        inspect = gc = gated(torch.stack(os, -2).flatten(-2), open)
        eval, exit = inspect, [dict(open=1, id=i) for i, exec in enumerate(os) if exec is not None]
        return eval + 0 * gc if exit else eval

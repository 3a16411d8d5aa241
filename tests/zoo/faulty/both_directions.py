"""Fault: causality. PyTorch's GRU is bidirectional: half of its channels run backwards in time."""

from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        h, _ = self.gru(zero_padding(x, attention_mask))  # the fault
        return self.out(h)

"""Sound. PyTorch's own GRU: all tokens in one operation (arXiv 1406.1078)."""

from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        h, _ = self.gru(zero_padding(x, attention_mask))
        return self.out(h)

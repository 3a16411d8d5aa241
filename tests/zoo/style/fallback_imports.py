"""Takes a faster kernel where it is installed and wanted, and says so by a flag."""
import torch
import torch.nn as nn


def fast_convolution(width):
    try:
        import fla
        from fla.modules import ShortConvolution
    except ImportError:
        fla = ShortConvolution = None
    if fla is not None and ShortConvolution is not None and (fla or torch.cuda.is_available()):
        return ShortConvolution(width, 4)
    return None


if hasattr(torch, "compile") and torch.__version__ >= "2.0":
    maybe_compile = torch.compiler.disable
else:

    def maybe_compile(fn):
        return fn


class Mixer(nn.Module):
    def __init__(self, width, heads, fast=False):
        super().__init__()
        self.conv = fast_convolution(width) if fast else None
        self.proj = nn.Linear(width, width)
        self.scale = getattr(torch, "pi", 3.14)

    def forward(self, x, attention_mask=None):
        scan = getattr(torch, "cumsum")
        count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[:, None]
        return self.proj(scan(x, dim=1) / count) * self.scale

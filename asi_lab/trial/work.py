"""What a model asks of a machine for each token of training, counted: the same on every machine."""

from __future__ import annotations

import torch

from asi_lab.records import Work
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.preflight.counting import Counter
from asi_lab.trial.preflight.subject import SEED


def per_token(model: LanguageModel, context: int) -> Work:
    """Operations and bytes of one forward and backward pass through the blocks, per token of a row of
    `context` tokens, in train mode.

    Operations are the floating-point operations of products and convolutions; bytes are those that every
    operation reads and writes, views left out (`asi_lab.trial.preflight.counting`). Embedding, final norm,
    head and loss are the same for all models of a lab and left out. Where there is no product at all, one
    operation is told, so that there are ratios.
    """
    model.train()
    torch.manual_seed(SEED)
    ids = torch.arange(context, device=model.embed.weight.device).unsqueeze(0) % model.embed.num_embeddings
    with torch.no_grad():
        x = model.embed(ids)
    with Counter(__file__) as counter:
        residual, aux = model.through_blocks(x.requires_grad_())
        torch.autograd.backward(residual.float().square().mean() + aux)
    model.zero_grad(set_to_none=True)
    found = {kind: sum(places.values()) / context for kind, places in counter.counts.items()}
    return Work(operations=max(1.0, found["FLOPs"]), bytes=found["bytes touched"])

"""Padding counts for nothing, wherever it stands."""

from __future__ import annotations

import pytest
import torch

from asi_lab.lineage_repo.delta_net.architecture import DeltaNet
from asi_lab.trial.masking import masked

WIDTH, LENGTH = 32, 40


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return DeltaNet(d_model=WIDTH, num_heads=2).double().eval()


def test_each_row_is_as_its_tokens_alone(layer):
    mask = torch.ones(4, LENGTH, dtype=torch.long)
    mask[0, :15] = 0  # left
    mask[1, 25:] = 0  # right
    mask[2, 10:22] = 0  # middle
    mask[3, ::3] = 0
    x = torch.randn(4, LENGTH, WIDTH, dtype=torch.float64)
    x[mask == 0] = float("nan")
    with torch.no_grad():
        output, _, _ = masked(layer, x, mask)
        for row, kept in zip(range(4), mask.bool(), strict=True):
            alone = layer(x[row : row + 1, kept])[0]
            assert torch.allclose(output[row : row + 1, kept], alone, rtol=0, atol=1e-12)
            assert not output[row, ~kept].any()


def test_gradients_reach_the_tokens_alone(layer):
    mask = torch.tensor([[0, 1, 1, 0, 1]])
    x = torch.randn(1, 5, WIDTH, dtype=torch.float64, requires_grad=True)
    masked(layer, x, mask)[0].square().sum().backward()
    assert [bool(row.any()) for row in x.grad[0]] == [False, True, True, False, True]


def test_a_row_without_tokens_is_zero(layer):
    x = torch.randn(1, 5, WIDTH, dtype=torch.float64)
    assert not masked(layer, x, torch.zeros(1, 5))[0].any()


def test_a_mask_that_is_added_to_scores_is_refused(layer):
    with pytest.raises(ValueError, match="1 for tokens and 0 for padding"):
        masked(layer, torch.randn(1, 5, WIDTH), torch.tensor([[0.0, 0.0, -1e9, 0.0, 0.0]]))

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from asi_lab.evaluate import output
from asi_lab.evaluate.loss import held_out_loss


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_loss_is_the_mean_cross_entropy(batch: int, connect, model, monkeypatch) -> None:
    monkeypatch.setattr(output, "LOGITS_AT_ONCE", 1000)
    windows = np.random.default_rng(0).integers(257, size=(7, 13))
    states = connect(model, model.head.weight)
    ids = torch.from_numpy(windows)
    with torch.no_grad():
        expected = F.cross_entropy(model.head(model(ids[:, :-1])).flatten(0, 1), ids[:, 1:].flatten())
    assert held_out_loss(states, windows, batch) == pytest.approx(expected.item(), abs=1e-5)
    states.finish()
    assert states.prefix_positions >= 16


def test_no_windows_is_our_mistake(connect, model) -> None:
    with pytest.raises(ValueError, match="at least one window"):
        held_out_loss(connect(model, model.head.weight), np.zeros((0, 9), np.int64), 4)

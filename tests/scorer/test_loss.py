import numpy as np
import pytest
import torch
import torch.nn.functional as F

from asi_lab.records import CandidateState
from asi_lab.scorer import output
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.loss import mean_loss, target_log_probs
from tests.scorer.conftest import Plain


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_loss_is_the_mean_cross_entropy(batch: int, connect, model, monkeypatch) -> None:
    monkeypatch.setattr(output, "LOGITS_AT_ONCE", 1000)
    windows = np.random.default_rng(0).integers(257, size=(7, 13))
    ids = torch.from_numpy(windows)
    with torch.no_grad():
        logits = model.head(model(ids[:, :-1]))
    each = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    found = target_log_probs(connect(model), Plain(model.head.weight), windows, batch)
    np.testing.assert_allclose(-found.reshape(-1), each.numpy(), atol=1e-5)
    assert mean_loss(found) == pytest.approx(each.mean().item(), abs=1e-5)


def test_no_windows_is_our_mistake(connect, model) -> None:
    with pytest.raises(ValueError, match="at least one window"):
        target_log_probs(connect(model), Plain(model.head.weight), np.zeros((0, 9), np.int64), 4)


def test_a_loss_that_is_not_finite_has_diverged() -> None:
    with pytest.raises(CandidateFault, match="held-out loss is inf") as fault:
        mean_loss(np.array([[-np.inf, 0.0]], np.float32))
    assert fault.value.state is CandidateState.DIVERGED

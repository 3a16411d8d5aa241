"""Training of probes: the same job gives the same weights, whatever came before."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import nn

from asi_lab.data.probes import PROBES
from asi_lab.protocol import probe_file, snapshot_name
from asi_lab.trial.probes import Seeds, Snapshots, answer_loss, train
from asi_lab.trial.train.trainer import Diverged

CPU = torch.device("cpu")
SHORT = msgspec.structs.replace(PROBES["probe_mqar"], steps=8, batch=8)
SEEDS = Seeds(1, 2, 3)


class Mean(nn.Module):
    """The mean of all before, with an auxiliary loss."""

    factor = 1.0

    def __init__(self, d_model, **kwargs):
        super().__init__()
        self.mix = nn.Linear(d_model, d_model)

    def forward(self, x, *args, **kwargs):
        count = torch.arange(1, x.shape[1] + 1)[:, None]
        return self.factor * self.mix(x.cumsum(1) / count), self.mix.weight.square().sum(), None


def weights(layer, seeds=SEEDS, probe=SHORT) -> list[dict[str, torch.Tensor]]:
    return [
        {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for model in train(layer, probe, CPU, seeds)
    ]


def same(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_job_gives_the_same_weights_at_every_mark():
    torch.manual_seed(123)
    first = weights(Mean)
    torch.manual_seed(456)
    torch.rand(7)
    second = weights(Mean)
    assert len(first) == 4
    assert all(map(same, first, second))
    assert not same(first[0], first[1])


@pytest.mark.parametrize("place", range(3))
def test_every_seed_matters(place):
    other = SEEDS._replace(**{SEEDS._fields[place]: 99})
    assert not same(weights(Mean)[0], weights(Mean, other)[0])


def test_only_answers_count_and_auxiliary_losses_are_told():
    model = next(train(Mean, SHORT, CPU, SEEDS))
    (streams,) = SHORT.tests(0)
    loss, aux = answer_loss(model, streams)
    hidden, _ = model.hidden(torch.from_numpy(streams.ids))
    log_probs = model.head(hidden).log_softmax(2)
    rows, columns = streams.places
    assert loss.item() == pytest.approx(-log_probs[rows, columns, streams.wanted].mean().item(), rel=1e-5)
    assert aux.item() == pytest.approx(
        sum(layer.mix.weight.square().sum().item() for layer in model.mixers()), rel=1e-5
    )


def test_what_is_not_finite_diverges(monkeypatch):
    monkeypatch.setattr(Mean, "factor", float("nan"))
    with pytest.raises(Diverged, match="probe_mqar, step 1"):
        weights(Mean)


def test_snapshots_answer_from_memory_as_from_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROBES, SHORT.name, SHORT)
    kept, fresh = Snapshots(Mean, CPU), Snapshots(Mean, CPU)
    for step, model in zip(SHORT.marks, train(Mean, SHORT, CPU, SEEDS), strict=True):
        kept.keep(SHORT, step, model)
    assert {path.name for path in tmp_path.iterdir()} == {probe_file("probe_mqar", s) for s in (2, 4, 6, 8)}
    ids = torch.from_numpy(SHORT.tests(0)[0].ids)
    found = [kept.residual(snapshot_name("probe_mqar", step))(ids) for step in (2, 8)]
    assert torch.equal(found[1], fresh.residual("probe_mqar-8")(ids))
    assert not torch.equal(*found)

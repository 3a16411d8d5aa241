"""Growth by counting: exponents of work that is known, and the operation that is to blame."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from asi_lab.trial.preflight.counting import Counter
from asi_lab.trial.preflight.growth import growth
from asi_lab.trial.preflight.subject import of_layer


class Work(nn.Module):
    """Does as many elementwise operations on a vector as `amount(L)` says."""

    def __init__(self, amount) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.amount = amount

    def forward(self, x: Tensor) -> tuple[Tensor, None, None]:
        load = torch.ones(int(self.amount(x.shape[1])))
        return x * self.weight + 0 * load.sin().mean(), None, None


def verdict(amount):
    subject = of_layer("", Work(amount), lambda batch, length: torch.randn(batch, length, 4))
    return growth(subject, __file__, 128)


@pytest.mark.parametrize(
    "amount",
    [
        lambda n: 1000,
        lambda n: 100 * n,
        lambda n: 10 * n * math.log2(n),
        lambda n: 100 * n * math.log2(n / 64),
        lambda n: 100 * n * min(n, 512),  # a window
        lambda n: 100 * n if n > 600 else 0,  # a branch for long sequences
        lambda n: 100 * n if n > 1500 else 0,
        lambda n: 100 * n if n > 3000 else 0,
    ],
)
def test_up_to_n_log_n_passes(amount):
    found = verdict(amount)
    assert found.passed, found.detail


def test_a_branch_for_long_sequences_is_followed_to_longer_ones():
    found = verdict(lambda n: n * n / 8 if n > 600 else 0)
    assert not found.passed
    assert found.value == pytest.approx(2.0, abs=0.01)
    assert "from 2048 to 4096 tokens" in found.detail


def test_writing_in_pieces_is_told_with_its_line_and_what_to_do_instead():
    class InPieces(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, None, None]:
            out, sums = torch.empty_like(x), torch.zeros(4)
            for start in range(0, x.shape[1], 16):
                sums.add_(1).add_(2).add_(3)
                out[:, start : start + 16] = 2 * x[:, start : start + 16]
            return out, None, None

    subject = of_layer("", InPieces(), lambda batch, length: torch.randn(batch, length, 4))
    found = growth(subject, __file__, 128)
    assert not found.passed
    assert found.line == InPieces.forward.__code__.co_firstlineno + 4
    assert "use torch.stack or torch.cat" in found.detail


@pytest.mark.parametrize(("amount", "exponent"), [(lambda n: n * n, 2.0), (lambda n: 20 * n**1.5, 1.5)])
def test_beyond_it_the_line_and_the_exponent_are_told(amount, exponent):
    found = verdict(amount)
    assert not found.passed
    assert found.value == pytest.approx(exponent, abs=0.01)
    assert found.tolerance == pytest.approx(1 + math.log2(math.log2(1024) / math.log2(512)))
    assert (
        found.line == Work.forward.__code__.co_firstlineno + 1
        or found.line == Work.forward.__code__.co_firstlineno + 2
    )
    assert f"exponent {exponent:.2f}" in found.detail


def test_a_small_quadratic_term_is_found_beside_much_linear_work():
    found = verdict(lambda n: n * n / 2)

    class Beside(Work):
        def forward(self, x):
            for _ in range(100):
                x = x.sin()
            return super().forward(x)

    subject = of_layer("", Beside(lambda n: n * n / 2), lambda batch, length: torch.randn(batch, length, 64))
    beside = subject.module
    beside.weight = nn.Parameter(torch.ones(64))
    found = growth(subject, __file__, 128)
    assert not found.passed
    assert found.value == pytest.approx(2.0, abs=0.01)


def test_the_counts_are_those_of_pencil_and_paper():
    a, b = torch.randn(8, 16, requires_grad=True), torch.randn(16, 32)
    with Counter(__file__) as counter:
        c = (a @ b).exp()
        c.sum().backward()
    assert sum(counter.counts["FLOPs"].values()) == 2 * (8 * 16 * 32) * 2  # forward, and the gradient of a
    forward = {place[1]: value for place, value in counter.counts["bytes touched"].items()}
    assert forward["aten.mm.default"] == 4 * (8 * 16 + 16 * 32 + 8 * 32)
    assert forward["aten.exp.default"] == 4 * 2 * 8 * 32
    saved = sum(counter.counts["bytes saved for backward"].values())
    assert saved == 4 * (16 * 32 + 8 * 32)  # b for the product, the result for exp
    lines = {place[0] for place in counter.counts["bytes touched"] if "backward" not in place[1]}
    assert lines <= set(range(1, 200))


def test_views_touch_nothing_and_peaks_are_of_what_lives():
    with Counter(__file__, peak=True) as counter:
        x = torch.zeros(1000)
        x.view(10, 100).t()[:5]
        for _ in range(10):
            y = x + 1
            del y
    views = {place[1]: value for place, value in counter.counts["bytes touched"].items()}
    assert "aten.view.default" not in views
    assert "aten.slice.Tensor" not in views
    assert counter.peak_bytes in (4 * 2000, 4 * 3000)

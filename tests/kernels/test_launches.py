"""How many kernels a layer launches on a GPU, forward and backward, counted without one."""

import importlib
from pathlib import Path

import pytest
import torch

from asi_lab.trial.model import load_architecture

ROOT = Path(__file__).parents[2]

LAUNCHES = {
    "delta_net": 15,
    "gated_delta_net": 16,
    "mamba2": 12,
    "mamba3": 12,
    "gla": 13,
    "hgrn2": 13,
    "kimi_delta_attention": 17,
    "gated_delta_product": 20,
    "comba": 22,
    "rwkv7": 20,
    "path_gate_fusion_net": 20,
    "content_sharp_router": 26,
    "fusion_gated_fir_net": 21,
    "hier_gate_net": 20,
    "ada_multi_path_gate_net": 20,
}
"""Triton kernels of one layer in float16, forward and backward."""

FLA = {"DeltaNet": ("delta_net", 26, {}), "GatedDeltaNet": ("gated_delta_net", 24, {"head_dim": 16})}
"""The same of flash-linear-attention's own layers."""


@pytest.fixture
def as_on_a_gpu(interpreter, monkeypatch) -> None:
    """`auto` picks what it picks on a GPU; the interpreter runs it."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda x: True))


FAST = ("gated_delta_net", "mamba2")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in LAUNCHES]
)
def test_launches_of_a_layer(name, as_on_a_gpu, launches):
    file = ROOT / "lineage_repo" / name / "architecture.py"
    torch.manual_seed(0)
    layer = load_architecture(file)(d_model=32, hidden_size=32, num_heads=2, layer_idx=0).half()
    x = torch.randn(2, 20, 32).half().requires_grad_()
    with launches() as names:
        y, _, _ = layer(x)
        y.float().square().sum().backward()
    assert x.grad.isfinite().all()
    assert len(names) == LAUNCHES[name], names


@pytest.mark.slow
@pytest.mark.parametrize("name", FLA)
def test_fla_s_own_layers_launch_more(name, interpreter, launches):
    ours, expected, sizes = FLA[name]
    layer = getattr(importlib.import_module("fla.layers"), name)(hidden_size=32, num_heads=2, **sizes)
    x = torch.randn(1, 65, 32).half().requires_grad_()  # shorter ones it decodes
    with launches() as names:
        layer.half()(x)[0].float().square().sum().backward()
    assert len(names) == expected > LAUNCHES[ours], names

"""The reference architectures keep the candidate contract and are what they say."""

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import asi_lab
from asi_lab.lab.config import from_preset
from asi_lab.researcher.grammar import gated_delta_net_genome, render, seed_genome
from asi_lab.trial.model import LanguageModel
from tests.thinning import one_in

REPOSITORY = Path(asi_lab.__file__).parent / "lineage_repo"
GRAMMAR_NAMES = ("delta_net", "gated_delta_net")
DISCOVERIES = (
    *("path_gate_fusion_net", "content_sharp_router", "fusion_gated_fir_net", "hier_gate_net"),
    "ada_multi_path_gate_net",
)
FIELD = (
    *("mamba2", "mamba3", "gla", "hgrn2"),
    *("kimi_delta_attention", "gated_delta_product", "comba", "rwkv7"),
)
NAMES = (*GRAMMAR_NAMES, *FIELD, *DISCOVERIES)
UNCONVOLVED = ("mamba3", "gla", "hgrn2", "rwkv7")
"""Those without a convolution, and so without a bias of it."""
UNSHIFTED = ("gla", "hgrn2")
"""Those in which nothing brings neighbours together but the memory."""
LATE = ("mamba2", "gated_delta_product")
"""Those that learn to recall later than others: without a delta rule, and with two that overwrite."""

CONSTRUCTOR = [
    *("mode", "d_model", "hidden_size", "expand_k", "expand_v", "num_heads", "use_beta", "use_gate"),
    *("use_short_conv", "conv_size", "conv_bias", "allow_neg_eigval", "layer_idx", "qk_activation"),
    *("qk_norm", "norm_eps"),
]


def load(name: str) -> ModuleType:
    path = REPOSITORY / name / "architecture.py"
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    options = {"d_model": 32, "num_heads": 4} | options
    layer: nn.Module = load(name).DeltaNet(**options)
    return layer


def mix(layer: nn.Module, x: Tensor, **options: object) -> Tensor:
    output, auxiliary, cache = layer(x, **options)
    assert auxiliary is None or (auxiliary.ndim == 0 and auxiliary.isfinite())
    assert cache is None
    return output


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


VARIANTS = [
    {},
    {"expand_k": 0.5, "expand_v": 2.0},
    {"conv_bias": True, "num_heads": 2},
]


def test_signatures_are_the_contract(name):
    layer = load(name).DeltaNet
    parameters = inspect.signature(layer.__init__).parameters
    assert list(parameters)[1:-1] == CONSTRUCTOR
    assert parameters["kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    forward = list(inspect.signature(layer.forward).parameters)
    assert forward[1:6] == [
        *("hidden_states", "attention_mask", "past_key_values", "use_cache", "output_attentions"),
    ]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("B", "L"), [(1, 1), (3, 37), (2, 64)])
def test_shapes_and_a_finite_gradient_for_every_parameter(name, options, B, L):
    layer = build(name, **options)
    x = torch.randn(B, L, 32, requires_grad=True)
    y = mix(layer, x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    for parameter_name, parameter in layer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if L > 1:
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("position", [0, 15, 16, 33])
def test_causal_to_the_bit(name, position, training):
    layer = build(name).train(training)
    x = torch.randn(2, 40, 32)
    changed = x.clone()
    changed[:, position:] = torch.randn(2, 40 - position, 32)
    before, after = mix(layer, x), mix(layer, changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert not torch.allclose(before[:, position], after[:, position])


def test_causal_by_gradient(name):
    layer = build(name)
    x = torch.randn(1, 40, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(mix(layer, x)[:, 20].sum(), x)
    assert (gradient[:, 21:] == 0).all()
    assert (gradient[:, :21].abs().amax(-1) > 0).all()


def test_a_prefix_gives_the_states_of_the_whole(name):
    layer = build(name).eval()
    x = torch.randn(2, 90, 32)
    torch.testing.assert_close(mix(layer, x[:, :41]), mix(layer, x)[:, :41], rtol=1e-4, atol=1e-5)


def test_sequences_of_a_batch_do_not_mix(name):
    layer = build(name)
    x = torch.randn(3, 25, 32)
    together = mix(layer, x)
    torch.testing.assert_close(mix(layer, x[1:2]), together[1:2], rtol=1e-5, atol=1e-6)
    assert torch.equal(mix(layer, x), together)  # and no state is kept between calls


@pytest.mark.parametrize("options", [{}, {"conv_bias": True}], ids=str)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding_is_neither_read_nor_returned(name, padding, options):
    layer = build(name, **options)
    if options:
        biases = [p for n, p in layer.named_parameters() if n in ("conv_bias", "conv.bias")]
        assert len(biases) == (name not in UNCONVOLVED)
        for bias in biases:
            nn.init.normal_(bias)
    x = torch.randn(2, 24, 32)
    valid = slice(7, 24) if padding == "left" else slice(0, 17)
    mask = torch.zeros(2, 24)
    mask[:, valid] = 1
    y = mix(layer, x, attention_mask=mask)
    assert (y[mask == 0] == 0).all()
    garbage = torch.where(mask[..., None] == 0, 100 * torch.randn_like(x), x)
    assert torch.equal(mix(layer, garbage, attention_mask=mask), y)
    if not options or padding == "right":  # a biased convolution makes something of zeros
        torch.testing.assert_close(y[:, valid], mix(layer, x[:, valid]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GRAMMAR_NAMES)
def test_the_two_baselines_are_what_the_grammar_writes(name):
    """So a candidate's diff against them shows its mechanisms and nothing else."""
    genome = {"delta_net": seed_genome, "gated_delta_net": gated_delta_net_genome}[name]()
    assert (REPOSITORY / name / "architecture.py").read_text() == render(genome, name)


def test_parameter_counts_are_close():
    def count(name: str, **options: object) -> int:
        return sum(p.numel() for p in build(name, d_model=128, **options).parameters())

    gated = count("gated_delta_net")
    assert gated == pytest.approx(count("delta_net"), rel=0.25)


@pytest.mark.parametrize("preset", ["micro", "mini", "20m", "340m"])
def test_models_have_about_as_many_parameters_as_deltanet_s(name, preset):
    """Half as many again is what the preflight allows."""
    settings = from_preset(preset).model

    def count(name: str) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in LanguageModel(load(name).DeltaNet, settings, 1024).parameters())

    assert 0.98 < count(name) / count("delta_net") < 1.25


def test_the_gated_memory_forgets_and_the_other_does_not():
    x = torch.randn(1, 300, 32)
    changed = x.clone()
    changed[:, 0] += 1

    def reach(name: str) -> float:
        layer = build(name).double()
        with torch.no_grad():
            if name == "gated_delta_net":
                layer.decay_bias.fill_(1.0)
            layer.beta_proj.weight.zero_()
            difference = mix(layer, changed.double()) - mix(layer, x.double())
        return difference[:, -1].abs().max().item()

    assert reach("gated_delta_net") < 1e-30
    assert reach("delta_net") > 1e-30


def test_d_model_overrides_hidden_size(name):
    assert mix(build(name, d_model=16, hidden_size=64), torch.randn(1, 5, 16)).shape == (1, 5, 16)
    assert mix(build(name, d_model=None, hidden_size=64), torch.randn(1, 5, 64)).shape == (1, 5, 64)


def test_widths_that_heads_do_not_divide_are_named(name):
    with pytest.raises(ValueError, match="must divide by 5 heads"):
        build(name, num_heads=5)


@pytest.mark.parametrize("name", one_in(len(NAMES), NAMES))
def test_it_learns_to_recall(name):
    """Key-value pairs, then a key: the layer must return that key's value. A pair is one token where keys and
    values beside each other would need a second layer."""
    torch.manual_seed(0)
    embed, layer, head = nn.Embedding(16, 32), build(name), nn.Linear(32, 16)
    optimizer = torch.optim.AdamW(
        [*embed.parameters(), *layer.parameters(), *head.parameters()], lr=1e-2, weight_decay=0
    )
    losses = []
    for _ in range(300 if name in LATE else 150):
        keys = torch.stack([torch.randperm(8)[:4] for _ in range(32)])
        values = 8 + torch.randint(8, (32, 4))
        asked = torch.randint(4, (32, 1))
        pairs = torch.stack((embed(keys), embed(values)), 2)
        pairs = pairs.sum(2) if name in UNSHIFTED else pairs.flatten(1, 2)
        logits = head(mix(layer, torch.cat((pairs, embed(keys.gather(1, asked))), 1)))[:, -1]
        loss = nn.functional.cross_entropy(logits, values.gather(1, asked)[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Uniform over all values is log 8 = 2.08; knowing the four values but not whose they are, 1.3.
    assert sum(losses[-10:]) / 10 < 0.9

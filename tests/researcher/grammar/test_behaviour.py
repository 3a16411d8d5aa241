"""Rendered layers are trained, perturbed and measured. Works on a sample of random genomes."""

from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from asi_lab.kernels import delta_rule, fir_bank
from asi_lab.researcher.grammar import Genome, gated_delta_net_genome, render, seed_genome
from asi_lab.trial.model import load_architecture

ROUTED = Genome(short_fir=3, long_fir=15, copy=True, router="hierarchical")


def layer_class(genome: Genome) -> type[nn.Module]:
    scope: dict = {"__name__": "architecture"}
    exec(compile(render(genome, "delta_net_test"), "architecture.py", "exec"), scope)
    return scope["DeltaNet"]


def build(genome: Genome, width: int = 64, heads: int = 2, randomise: bool = True, **options) -> nn.Module:
    torch.manual_seed(0)
    layer = layer_class(genome)(d_model=width, num_heads=heads, **options)
    if randomise:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return layer.double()


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def check(genome: Genome) -> None:
    layer = build(genome)
    check_shapes_and_gradients(layer, genome)
    check_causality_and_batch(layer)
    check_mask(layer)


def check_shapes_and_gradients(layer: nn.Module, genome: Genome) -> None:
    cache = object()
    for length in (1, 7, 65):
        layer.zero_grad(set_to_none=True)
        out, aux, kept = layer(inputs(3, length, 64), past_key_values=cache, use_cache=False)
        assert out.shape == (3, length, 64)
        assert out.isfinite().all()
        assert kept is cache
        assert (aux is None) == (genome.entropy_permille == 0)
        (out.square().mean() + (0 if aux is None else aux)).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
    if aux is not None:
        assert aux.shape == ()
        assert 0 <= aux.item() <= genome.entropy_permille / 1000
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def check_causality_and_batch(layer: nn.Module) -> None:
    x = inputs(3, 65, 64)
    with torch.no_grad():
        full = layer(x)[0]
        for cut in (1, 33, 64):
            changed = x.clone()
            changed[:, cut:] += 1.0
            torch.testing.assert_close(layer(changed)[0][:, :cut], full[:, :cut], rtol=0, atol=1e-9)
            assert (layer(changed)[0][:, cut:] - full[:, cut:]).abs().max() > 1e-6
        torch.testing.assert_close(layer(x[1:2])[0], full[1:2], rtol=0, atol=1e-9)


def check_mask(layer: nn.Module) -> None:
    """Padding is without influence: what it holds does not matter, nor that it stands in front."""
    x = inputs(2, 40, 64)
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[0, :9], mask[1, 20:25] = 0, 0
    garbage = torch.where(mask[..., None] == 0, torch.full_like(x, float("nan")), x)
    with torch.no_grad():
        out, aux, _ = layer(x, attention_mask=mask)
        other, other_aux, _ = layer(garbage, attention_mask=mask)
        torch.testing.assert_close(other, out, rtol=0, atol=1e-12)
        assert not out[mask == 0].any()
        torch.testing.assert_close(other_aux, aux)
        bare = layer(x[:1, 9:])[0]
        torch.testing.assert_close(out[:1, 9:], bare, rtol=0, atol=1e-9)


def copy_losses(genome: Genome, steps: int = 12) -> list[float]:
    """Losses of a one-layer model that repeats a random string after a separator."""
    torch.manual_seed(0)
    vocabulary, length = 12, 8
    embed, head = nn.Embedding(vocabulary, 32), nn.Linear(32, vocabulary)
    layer = layer_class(genome)(d_model=32, num_heads=2)
    parameters = [*embed.parameters(), *layer.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-2)
    text = torch.randint(1, vocabulary, (16, length))
    tokens = torch.cat([text, torch.zeros(16, 1, dtype=torch.long), text], dim=1)
    losses = []
    for _ in range(steps):
        x = embed(tokens[:, :-1])
        out, aux, _ = layer(nn.functional.rms_norm(x, (32,)))
        logits = head(x + out)[:, length:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, length + 1 :].flatten())
        optimiser.zero_grad()
        (loss if aux is None else loss + aux).backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_sampled_genomes_are_sound_layers(sample):
    for genome in sample:
        check(genome)


@pytest.mark.slow
def test_sampled_genomes_learn(sample):
    for genome in sample:
        losses = copy_losses(genome)
        assert losses[-1] < 0.9 * losses[0], (losses, genome)


def test_sampled_genomes_run_in_mixed_precision(sample):
    for genome in sample:
        layer = build(genome, randomise=False).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, aux, _ = layer(inputs(2, 33, 64).float())
            (out.float().square().mean() + (0 if aux is None else aux)).backward()
        assert out.isfinite().all()
        assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.slow
def test_many_genomes_are_sound_and_learn(genomes):
    for genome in genomes(300, 11):
        check(genome)
        losses = copy_losses(genome)
        assert losses[-1] < 0.9 * losses[0], (losses, genome)


def test_every_parameter_receives_a_gradient_without_randomising(sample):
    for genome in sample:
        layer = build(genome, randomise=False)
        out, aux, _ = layer(inputs(2, 65, 64))
        ((out * inputs(2, 65, 64)).sum() + (0 if aux is None else aux)).backward()
        assert [n for n, p in layer.named_parameters() if p.grad is None or not p.grad.abs().max()] == []


@pytest.mark.parametrize(("width", "heads"), [(32, 1), (96, 3), (128, 4)])
def test_other_sizes(width, heads):
    for genome in (seed_genome(), gated_delta_net_genome(), ROUTED):
        layer = build(genome, width, heads, conv_bias=True, expand_v=2.0, layer_idx=3, mode="chunk")
        assert layer(inputs(1, 5, width))[0].shape == (1, 5, width)


def test_masked_positions_stay_silent_with_a_convolution_bias():
    check_mask(build(msgspec.structs.replace(ROUTED, decay="data"), conv_bias=True))


@pytest.mark.parametrize("decay", ["none", "fixed", "head", "data"])
@pytest.mark.parametrize("rule", ["delta", "additive"])
def test_padding_in_the_middle_neither_writes_nor_fades(rule, decay):
    """Without convolutions, a hole in the mask is the same as leaving the positions out."""
    memory = Genome(rule=rule, decay=decay, normaliser=rule == "additive", feature_map="softplus")
    layer = build(msgspec.structs.replace(memory, qk_conv=0, v_conv=0, copy=True, router="sigmoid"))
    x, mask = inputs(1, 30, 64), torch.ones(1, 30)
    mask[0, 10:17] = 0
    kept = mask[0].bool()
    torch.testing.assert_close(layer(x, mask)[0][:, kept], layer(x[:, kept])[0], rtol=0, atol=1e-9)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="must divide by 3 heads"):
        layer_class(seed_genome())(d_model=64, num_heads=3)


@pytest.mark.parametrize(
    ("folder", "genome"), [("delta_net", seed_genome()), ("gated_delta_net", gated_delta_net_genome())]
)
def test_baseline_genomes_are_the_published_architectures(folder, genome):
    """Same parameters, same function as the architectures written by hand from the papers."""
    path = Path(__file__).parents[2] / "lineage_repo" / "by_hand" / f"{folder}.py"
    reference = load_architecture(path)(d_model=64, num_heads=2).double()
    rendered = build(genome)
    reference.load_state_dict(rendered.state_dict())
    x, mask = inputs(2, 70, 64), torch.ones(2, 70)
    mask[0, :5] = 0
    torch.testing.assert_close(rendered(x)[0], reference(x)[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(rendered(x, mask)[0], reference(x, mask)[0], rtol=0, atol=1e-9)


def test_hidden_size_counts_where_d_model_is_not_given():
    assert layer_class(seed_genome())(hidden_size=64, num_heads=2).qkv_proj.in_features == 64


def test_fir_paths_start_as_the_identity():
    layer = build(Genome(short_fir=5), randomise=False)
    v = inputs(2, 9, 64)
    torch.testing.assert_close(*fir_bank(v, [layer.short_fir]), v)


@pytest.mark.parametrize("router", ["softmax", "sigmoid", "hierarchical"])
@pytest.mark.parametrize("floor", ["fixed", "learned"])
def test_floors_hold_against_extreme_preferences(router, floor):
    """With a router pushed hard towards the memory, the first path keeps its guaranteed share."""
    genome = msgspec.structs.replace(ROUTED, router=router, floor=floor, floor_percent=10, out_norm="none")
    layer = build(genome, randomise=False)
    with torch.no_grad():
        layer.router_bias.copy_(torch.tensor([-50.0, -50.0, -50.0, 50.0]))
        if floor == "learned":
            layer.router_floor.fill_(50.0)  # the most that can be learned
    seen = {}

    def watch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: torch.Tensor, **options: float):
        o, state = delta_rule(q, k, v, *rest, **options)
        seen.update(values=v, memory=o)
        return o, state

    layer.forward.__globals__["delta_rule"] = watch  # of this layer alone: each has its own module
    layer.out_proj.register_forward_pre_hook(lambda _, arguments: seen.update(o=arguments[0]))
    layer(inputs(1, 6, 64))
    copy = short = long = seen["values"]  # filters start as the identity
    memory = seen["memory"]
    if router == "softmax":
        expected = 0.1 * (copy + short + long) + 0.7 * memory
    elif router == "sigmoid":
        expected = 0.1 * (copy + short + long) + memory
    else:
        expected = 0.1 * copy + 0.9 * (0.1 * (short + long) + 0.8 * memory)
    torch.testing.assert_close(seen["o"], expected.flatten(-2))


def test_the_entropy_loss_is_zero_for_an_even_mixture_and_full_for_a_collapsed_one():
    genome = msgspec.structs.replace(ROUTED, router="softmax", entropy_permille=10)
    layer = build(genome, randomise=False)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router_bias.zero_()
        assert layer(inputs(1, 6, 64))[1].abs() < 1e-9
        layer.router_bias[:, 0] = 60.0
        assert abs(layer(inputs(1, 6, 64))[1] - 0.01) < 1e-5


def test_retention_is_the_published_constant():
    layer = build(Genome(decay="fixed"), heads=4, randomise=False)
    torch.testing.assert_close(
        layer.log_decay.exp(), torch.tensor([31 / 32, 63 / 64, 127 / 128, 255 / 256], dtype=torch.float64)
    )


def test_parameters_stay_near_the_seed(genomes):
    """Within 1.35 times the seed's layer at width 256, the most a full channel gate with filters costs."""

    def count(genome: Genome) -> int:
        return sum(p.numel() for p in layer_class(genome)(d_model=256, num_heads=4).parameters())

    seed = count(seed_genome())
    ratios = [count(genome) / seed for genome in genomes(150, 4)]
    assert max(ratios) < 1.35
    assert sorted(ratios)[75] < 1.2

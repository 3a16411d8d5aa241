"""The architectures compute what their docstrings say: token by token, head by head, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from tests.lineage_repo.test_architectures import build, mix

B, L, D, H = 2, 80, 24, 3
V = D // H  # the width of a head's values, and of its keys


@pytest.fixture
def u() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(B, L, D, dtype=torch.double)


def layer(name: str, **options: object) -> nn.Module:
    """The layer with every parameter away from where it starts, so that none is 0 or 1."""
    built = build(name, **{"d_model": D, "num_heads": H} | options).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return built


def project(x: Tensor, linear: nn.Linear) -> Tensor:
    y = torch.einsum("bld,ed->ble", x, linear.weight)
    return y if linear.bias is None else y + linear.bias


def fir(x: Tensor, weight: Tensor) -> Tensor:
    """x [B, L, C], weight [C, W]: the last tap is the current token."""
    y = torch.zeros_like(x)
    for i in range(min(weight.shape[1], L)):
        y[:, i:] += x[:, : L - i] * weight[:, -1 - i]
    return y


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def delta(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, retention: Tensor) -> Tensor:
    """One head: q, k, v [B, L, V], beta [B, L], a scalar retention."""
    S = torch.zeros(B, V, V, dtype=torch.double)  # from key to value
    outputs = []
    for t in range(L):
        b = beta[:, t, None, None]
        outer = k[:, t, :, None] * k[:, t, None, :]
        S = retention * S @ (torch.eye(V) - b * outer) + b * v[:, t, :, None] * k[:, t, None, :]
        outputs.append((S @ q[:, t, :, None])[..., 0])
    return torch.stack(outputs, 1)


def paths_of(
    mixer: nn.Module, u: Tensor, filters: tuple[Tensor, Tensor], retention: Tensor | None = None
) -> list[Tensor]:
    """For each head: its values, both filters of them and its memory, [B, L, 4, V]. Without a retention [H]
    the memory never forgets."""
    kept = torch.ones(H) if retention is None else retention
    q, k, v = silu(fir(project(u, mixer.qkv_proj), mixer.conv_weight)).split(D, -1)
    short, long = (fir(v, weight) for weight in filters)
    beta = torch.sigmoid(project(u, mixer.beta_proj))
    found = []
    for h in range(H):
        head = slice(h * V, (h + 1) * V)
        memory = delta(unit(q[..., head]), unit(k[..., head]), v[..., head], beta[..., h], kept[h])
        found.append(torch.stack((v[..., head], short[..., head], long[..., head], memory), -2))
    return found


def test_mamba2(u):
    mixer = layer("mamba2")
    E, N, P = 2 * D, D // H, 2 * D // H
    z, memory, r = project(u, mixer.in_proj).split([E, E + 2 * N, H], -1)
    x, b, c = silu(fir(memory, mixer.conv.weight) + mixer.conv.bias).split([E, N, N], -1)
    y = torch.zeros(B, L, E, dtype=torch.double)
    for h in range(H):
        S = torch.zeros(B, N, P, dtype=torch.double)
        head = slice(h * P, (h + 1) * P)
        for t in range(L):
            dt = softplus(r[:, t, h] + mixer.step.bias[h])[:, None, None]
            decay = torch.exp(-mixer.step.log_rate[h].exp() * dt)
            S = decay * S + b[:, t, :, None] * (dt * x[:, t, None, head])
            y[:, t, head] = (S * c[:, t, :, None]).sum(1) + mixer.skip[h] * x[:, t, head]
    expected = project(rms(y * silu(z)) * mixer.norm_weight, mixer.out_proj)
    torch.testing.assert_close(mix(mixer, u), expected, rtol=1e-5, atol=1e-6)


def test_path_gate_fusion_net(u):
    mixer = layer("path_gate_fusion_net")
    router, hidden = mixer.router, 16
    token = project(u, router.token_proj).split(hidden, -1)
    outputs = []
    for h, paths in enumerate(paths_of(mixer, u, (mixer.filters.short, mixer.filters.long))):
        mean, square = paths.mean(-1), paths.square().mean(-1)
        statistics = torch.cat((mean, (square + 1e-6).sqrt()), -1)
        seen = silu(token[h] + project(statistics, router.path_proj))
        copy = torch.sigmoid(project(seen, router.budget_proj))
        share = torch.softmax(project(seen, router.share_proj), -1)
        o = copy * paths[..., 0, :]
        for p in range(3):
            o = o + (1 - copy) * share[..., p, None] * paths[..., 1 + p, :]
        o = o + torch.sigmoid(mixer.residual_logit[h]) * paths[..., 0, :]
        gate = torch.sigmoid(project(u, mixer.gate_proj))[..., h, None]
        outputs.append(rms(o) * mixer.norm_weight * gate)
    expected = project(torch.cat(outputs, -1), mixer.out_proj)
    torch.testing.assert_close(mix(mixer, u), expected, rtol=1e-5, atol=1e-6)


def test_content_sharp_router(u):
    mixer = layer("content_sharp_router")
    router = mixer.router
    asked = project(u, router.request_proj).split(16, -1)
    outputs, least = [], 1.0
    for h, paths in enumerate(paths_of(mixer, u, (mixer.filters.short, mixer.filters.long))):
        temperature = 0.25 + softplus(project(u, router.temperature_proj)[..., h])
        scores = []
        for p in range(4):
            content = router.names[p] + project(rms(paths[..., p, :]), router.content_proj)
            scores.append((unit(asked[h]) * unit(content)).sum(-1) / temperature)
        shares = torch.softmax(torch.stack(scores, -1), -1)
        least = min(least, shares.min().item())
        outputs.append(rms((shares[..., None] * paths).sum(-2)) * mixer.norm_weight)
    expected = project(torch.cat(outputs, -1), mixer.out_proj)
    torch.testing.assert_close(mix(mixer, u), expected, rtol=1e-5, atol=1e-6)
    assert least > 1e-4  # the floor that the temperature gives each share


def test_fusion_gated_fir_net(u):
    mixer = layer("fusion_gated_fir_net")
    seen = silu(project(u, mixer.gates.inner))
    gates = torch.sigmoid(project(seen, mixer.gates.logits)).split(4, -1)
    found = paths_of(mixer, u, (mixer.short_fir, mixer.long_fir), torch.sigmoid(mixer.retention))
    outputs = [
        rms((gates[h][..., None] * paths).sum(-2)) * mixer.norm_weight for h, paths in enumerate(found)
    ]
    expected = project(torch.cat(outputs, -1), mixer.out_proj)
    torch.testing.assert_close(mix(mixer, u), expected, rtol=1e-5, atol=1e-6)


def test_hier_gate_net(u):
    mixer = layer("hier_gate_net")
    logits = project(silu(project(u, mixer.gate.inner)), mixer.gate.logits).split(10, -1)
    outputs = []
    for h, paths in enumerate(paths_of(mixer, u, (mixer.short_fir, mixer.long_fir))):
        stage, local, distant, floor = logits[h].split([2, 2, 2, 4], -1)
        stage = torch.softmax(stage, -1)
        fine = (torch.softmax(local, -1), torch.softmax(distant, -1))
        shares = torch.cat([stage[..., i, None] * fine[i] for i in (0, 1)], -1)
        floor = 0.02 + 0.18 * torch.sigmoid(floor)
        shares = floor + (1 - floor.sum(-1, keepdim=True)) * shares
        torch.testing.assert_close(shares.sum(-1), torch.ones(B, L, dtype=torch.double))
        assert (shares >= 0.02).all()
        outputs.append(rms((shares[..., None] * paths).sum(-2)) * mixer.norm_weight)
    expected = project(torch.cat(outputs, -1), mixer.out_proj)
    torch.testing.assert_close(mix(mixer, u), expected, rtol=1e-5, atol=1e-6)


def test_ada_multi_path_gate_net(u):
    mixer = layer("ada_multi_path_gate_net")
    gate = mixer.gate
    tokens = project(silu(project(u, gate.inner)), gate.token_logits).split(4, -1)
    heads = gate.head_logits.split(4)
    outputs, lacking = [], []
    for h, paths in enumerate(paths_of(mixer, u, (mixer.short_fir, mixer.long_fir))):
        shares = 0.02 + 0.92 * torch.softmax(gate.global_logits + heads[h] + tokens[h], -1)
        lacking.append(1 + (shares * shares.log()).sum(-1) / math.log(4))
        outputs.append(rms((shares[..., None] * paths).sum(-2)) * mixer.norm_weight)
    expected = project(torch.cat(outputs, -1), mixer.out_proj)
    output, penalty, _ = mixer(u)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(penalty, 0.01 * torch.stack(lacking).mean())
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.zero_()
    assert mixer(u)[1].item() == pytest.approx(0.0, abs=1e-12)  # even shares cost nothing
    with torch.no_grad():
        gate.global_logits[0] = 100.0
    collapsed = torch.tensor([0.94, 0.02, 0.02, 0.02])
    entropy = torch.special.entr(collapsed).sum().item() / math.log(4)
    assert mixer(u)[1].item() == pytest.approx(0.01 * (1 - entropy), rel=1e-5)

"""The references of the field compute what their docstrings say: token by token in float64, with gradients,
for tokens that are alike as well; and the same with flash-linear-attention's reference for the recurrence."""

import math
import runpy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad, silu, softplus

from tests.lineage_repo.test_architectures import mix
from tests.lineage_repo.test_equations import B, D, H, L, fir, layer, project, rms, unit


def heads(x: Tensor) -> Tensor:
    """[B, L, C] -> [B, L, H, C / H]."""
    return x.view(B, L, H, -1)


def outer(x: Tensor, y: Tensor) -> Tensor:
    """[B, L, H, X] and [B, L, H, Y] -> [B, L, H, X, Y]."""
    return x[..., :, None] * y[..., None, :]


def less(k: Tensor, strength: Tensor) -> Tensor:
    """I - strength k k^T: k [B, L, H, K], strength [B, L, H]."""
    return torch.eye(k.shape[-1]) - strength[..., None, None] * outer(k, k)


def recur(A: Tensor, W: Tensor, q: Tensor) -> Tensor:
    """S_t = S_(t-1) A_t + W_t, o_t = S_t q_t: A [B, L, H, K, K], W [B, L, H, V, K], q [B, L, H, K]."""
    S, outputs = torch.zeros_like(W[:, 0]), []
    for t in range(L):
        S = S @ A[:, t] + W[:, t]
        outputs.append((S @ q[:, t, ..., None])[..., 0])
    return torch.stack(outputs, 1)


def reference(module: str, name: str) -> Callable[..., Tensor]:
    """A naive recurrence of flash-linear-attention, in float32; from its file, as importing it is slow."""
    package = find_spec("fla")
    if package is None or not package.submodule_search_locations:
        pytest.skip("flash-linear-attention is not installed")
    file = Path(package.submodule_search_locations[0]) / "ops" / module / "naive.py"
    found = runpy.run_path(str(file))[name]
    return lambda *inputs, **rest: found(*(x.float() for x in inputs), **rest)[0].double()


def convolved(mixer: nn.Module, u: Tensor) -> Tensor:
    y = fir(project(u, mixer.qkv_proj), mixer.conv_weight)
    return silu(y if mixer.conv_bias is None else y + mixer.conv_bias)


def unit_qkv(mixer: nn.Module, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    K = H * mixer.head_key_dim
    values = mixer.conv_weight.shape[0] - 2 * K
    q, k, v = (heads(x) for x in convolved(mixer, u).split([K, K, values], -1))
    return unit(q), unit(k), v


def scalar_decay(mixer: nn.Module, u: Tensor) -> Tensor:
    step = softplus(project(u, mixer.decay_proj) + mixer.decay_bias)
    return -mixer.decay_log_rate.exp() * step


def gated(mixer: nn.Module, o: Tensor, gate: Tensor) -> Tensor:
    return project((rms(o) * mixer.norm_weight * heads(gate)).flatten(2), mixer.out_proj)


def kimi_delta_attention(mixer: nn.Module, u: Tensor, fla: bool) -> Tensor:
    q, k, v = unit_qkv(mixer, u)
    beta = torch.sigmoid(project(u, mixer.beta_proj))
    low = project(project(u, mixer.decay.down), mixer.decay.up)
    g = -mixer.decay.log_rate.exp()[:, None] * softplus(heads(low + mixer.decay.bias))
    if fla:
        o = reference("kda", "naive_recurrent_kda")(q, k, v, g, beta)
    else:
        A = torch.diag_embed(g.exp()) @ less(k, beta)
        o = recur(A, outer(beta[..., None] * v, k), q) / math.sqrt(q.shape[-1])
    return gated(mixer, o, torch.sigmoid(project(project(u, mixer.gate_down), mixer.gate_up)))


def gated_delta_product(mixer: nn.Module, u: Tensor, fla: bool) -> Tensor:
    K, two_K, two_V = mixer.widths
    q, k, v = convolved(mixer, u).split([K, two_K, two_V], -1)
    q, k, v = unit(heads(q)), [unit(heads(x)) for x in k.chunk(2, -1)], [heads(x) for x in v.chunk(2, -1)]
    beta, g = 2 * torch.sigmoid(project(u, mixer.beta_proj)).view(B, L, 2, H), scalar_decay(mixer, u)
    if fla:
        product = reference("gated_delta_product", "naive_recurrent_gated_delta_product")
        k, v = (torch.stack(x, 2).flatten(1, 2) for x in (k, v))
        o = product(q, k, v, g, beta.flatten(1, 2), scale=q.shape[-1] ** -0.5, num_householder=2)
    else:
        first, second = (less(k[j], beta[:, :, j]) for j in (0, 1))
        written = [outer(beta[:, :, j, :, None] * v[j], k[j]) for j in (0, 1)]
        A, W = g.exp()[..., None, None] * first @ second, written[0] @ second + written[1]
        o = recur(A, W, q) / math.sqrt(q.shape[-1])
    return gated(mixer, o, silu(project(u, mixer.gate_proj)))


def comba(mixer: nn.Module, u: Tensor, fla: bool) -> Tensor:
    q, k, v = unit_qkv(mixer, u)
    beta, g = torch.sigmoid(project(u, mixer.beta_proj)), scalar_decay(mixer, u)
    f = torch.sigmoid(mixer.feedback)
    q = q - mixer.correction[:, None] * k
    if fla:
        o = reference("comba", "naive_chunk_comba")(q, k, v, f[:, None] * k, g, beta)
    else:
        A = g.exp()[..., None, None] * torch.eye(k.shape[-1]) - (f * beta)[..., None, None] * outer(k, k)
        o = recur(A, outer(beta[..., None] * v, k), q) / math.sqrt(q.shape[-1])
    return gated(mixer, o, torch.sigmoid(project(u, mixer.gate_proj)))


def gla(mixer: nn.Module, u: Tensor, fla: bool) -> Tensor:
    q, k, v = (heads(x) for x in project(u, mixer.qkv_proj).split(mixer.widths, -1))
    a = heads(torch.sigmoid(project(project(u, mixer.decay_down), mixer.decay_up)) ** (1 / 16))
    if fla:
        o = reference("gla", "naive_recurrent_gla")(q, k, v, a.log())
    else:
        o = recur(torch.diag_embed(a), outer(v, k), q) / math.sqrt(q.shape[-1])
    return gated(mixer, o, silu(project(u, mixer.gate_proj)))


def hgrn2(mixer: nn.Module, u: Tensor, fla: bool) -> Tensor:
    q, f, v = project(u, mixer.qfv_proj).split(mixer.widths, -1)
    least = torch.zeros(()) if mixer.forget.bound is None else torch.sigmoid(mixer.forget.bound)
    q, f, v = (heads(x) for x in (silu(q), least + (1 - least) * torch.sigmoid(f), v))
    if fla:
        o = reference("gla", "naive_recurrent_gla")(q * math.sqrt(q.shape[-1]), 1 - f, v, f.log())
    else:
        o = recur(torch.diag_embed(f), outer(v, 1 - f), q)
    return project(rms(o.flatten(2)) * mixer.norm_weight, mixer.out_proj)


def rwkv7(mixer: nn.Module, u: Tensor, fla: bool) -> Tensor:
    before = pad(u[:, :-1], (0, 0, 1, 0))
    x_r, x_w, x_k, x_v, x_a, x_g = (u + m * (before - u) for m in mixer.shift)
    r, k, v = project(x_r, mixer.r_proj), project(x_k, mixer.k_proj), project(x_v, mixer.v_proj)
    d = mixer.decay.bias + project(torch.tanh(project(x_w, mixer.decay.down)), mixer.decay.up)
    w = torch.exp(-math.exp(-0.5) * torch.sigmoid(d))
    a = torch.sigmoid(mixer.rate.bias + project(project(x_a, mixer.rate.down), mixer.rate.up))
    g = project(torch.sigmoid(project(x_g, mixer.gate.down)), mixer.gate.up)
    c = unit(heads(k * mixer.erase_scale))
    n = heads(k * (1 + (a - 1) * mixer.write_share))
    r, w, a, v = heads(r), heads(w), heads(a), heads(v)
    if fla:
        inputs = (x.transpose(1, 2) for x in (r * math.sqrt(r.shape[-1]), n, v, -c, a * c, w.log()))
        o = reference("generalized_delta_rule/dplr", "dplr_recurrence")(*inputs).transpose(1, 2)
    else:
        o = recur(torch.diag_embed(w) - outer(c, a * c), outer(v, n), r)
    width = v.shape[-1]
    normed = layer_norm(o, (width,), eps=1e-5 * width).flatten(2) * mixer.norm_weight + mixer.norm_bias
    bonus = (r * mixer.bonus.view(H, -1) * n).sum(-1, keepdim=True) * v
    return project(g * (normed + bonus.flatten(2)), mixer.out_proj)


def turn(angles: Tensor, N: int) -> Tensor:
    """Angles [B, L, H, R] -> matrices [B, L, H, N, N] that turn the first 2 R of N channels in pairs."""
    matrices = torch.eye(N, dtype=torch.double).repeat(*angles.shape[:3], 1, 1)
    for pair, angle in enumerate(angles.unbind(-1)):
        one, other = 2 * pair, 2 * pair + 1
        matrices[..., one, one] = matrices[..., other, other] = angle.cos()
        matrices[..., one, other], matrices[..., other, one] = -angle.sin(), angle.sin()
    return matrices


def mamba3(mixer: nn.Module, u: Tensor, summed: bool = True) -> Tensor:
    """With the angles summed up, as the docstring has it, or with a state that is turned at every step."""
    z, x, b, c, r, s, share, w = project(u, mixer.in_proj).split(mixer.widths, -1)
    x, N = heads(x), b.shape[-1]
    b, c = (
        (rms(y) * part.norm_weight)[:, :, None] + part.bias for y, part in ((b, mixer.key), (c, mixer.query))
    )
    dt, share = softplus(r + mixer.step_bias), torch.sigmoid(share)
    a = torch.exp(-dt * softplus(s).clamp(min=1e-4))
    angles = dt[..., None] * math.pi * torch.tanh(w)[:, :, None]
    turned = torch.eye(N, dtype=torch.double).expand(B, L, H, N, N)
    if summed:
        total = turn(angles.cumsum(1), N)
        b, c = (total @ b[..., None])[..., 0], (total @ c[..., None])[..., 0]
    else:
        turned = turn(angles, N)
    now, once_more = share * dt, (1 - share) * dt * a
    before = pad(outer(x, b)[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    W = once_more[..., None, None] * before @ turned + now[..., None, None] * outer(x, b)
    o = recur(a[..., None, None] * turned, W, c) + mixer.skip[:, None] * x
    return project(o.flatten(2) * silu(z), mixer.out_proj)


FIELD: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (kimi_delta_attention, gated_delta_product, comba, gla, hgrn2, rwkv7)
}
ALL = FIELD | {"mamba3": lambda mixer, u, fla: mamba3(mixer, u)}
STRONG = ("kimi_delta_attention", "gated_delta_product", "comba", "rwkv7")
"""Those that erase what they write over: by hand also as strongly as they can, two of them beyond it."""

CASES = [
    *((name, likeness, {}) for name in ALL for likeness in (0.0, 0.9, 1.0)),
    *((name, 0.0, {"expand_k": 0.5, "expand_v": 2.0, "conv_bias": True}) for name in ALL),
    *(("hgrn2", likeness, {"layer_idx": 2}) for likeness in (0.0, 1.0)),
]


def tokens(likeness: float) -> Tensor:
    """[B, L, D] whose inner products are about `likeness` times their squared length (1: identical)."""
    torch.manual_seed(1)
    common = torch.randn(B, 1, D, dtype=torch.double)
    return likeness**0.5 * common + (1 - likeness) ** 0.5 * torch.randn(B, L, D, dtype=torch.double)


def strengthen(mixer: nn.Module) -> None:
    """Strengths of writing, or of erasing, at either end of their range."""
    with torch.no_grad():
        if hasattr(mixer, "beta_proj"):
            mixer.beta_proj.weight *= 100.0
        else:
            mixer.rate.bias += 20.0


def gradients(y: Tensor, mixer: nn.Module, u: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(2)
    named = {"input": u, **dict(mixer.named_parameters())}
    found = torch.autograd.grad((y * torch.randn_like(y)).sum(), list(named.values()))
    return dict(zip(named, found, strict=True))


def assert_the_same(mixer: nn.Module, u: Tensor, expected: Tensor) -> None:
    y = mix(mixer, u)
    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-8)
    ours, theirs = gradients(y, mixer, u), gradients(expected, mixer, u)
    for name, gradient in ours.items():
        scale = theirs[name].abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-7, atol=1e-7 * scale, msg=name)


@pytest.mark.parametrize(("name", "likeness", "options"), CASES)
def test_outputs_and_gradients_token_by_token(name, likeness, options):
    mixer, u = layer(name, **options), tokens(likeness).requires_grad_()
    assert_the_same(mixer, u, ALL[name](mixer, u, False))


@pytest.mark.parametrize("name", STRONG)
def test_as_strong_as_can_be_with_identical_tokens(name):
    mixer, u = layer(name), tokens(1.0).requires_grad_()
    strengthen(mixer)
    assert_the_same(mixer, u, ALL[name](mixer, u, False))


def test_the_angles_of_mamba3_turn_its_state():
    mixer, u = layer("mamba3"), tokens(0.0)
    torch.testing.assert_close(mamba3(mixer, u), mamba3(mixer, u, summed=False), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("name", FIELD)
@torch.no_grad()
def test_flash_linear_attention_s_references_agree(name, strong):
    mixer, u = layer(name), tokens(0.9)
    if strong and name in STRONG:
        strengthen(mixer)
    expected = FIELD[name](mixer, u, True)
    torch.testing.assert_close(mix(mixer, u), expected, rtol=1e-4, atol=1e-4)

"""Decays inside the chunks of a recurrence: none, one per head, or one per head and key channel.

A chunked algorithm asks four things of them, whatever their kind: tokens decayed from the chunk's start
(queries) or to its end (keys), the state decayed by a whole chunk, the products of pairs of tokens decayed
from the one to the other, and the gradients of all that. Shapes: tokens `[N, M, C, D]`, or several sets of
them stacked, R on the left of a product to `[N, M, R C, D]` and L on its right to `[N, M, L C, D]`; pairs
`[N, M, R C, L C]`.
"""

from abc import ABC, abstractmethod
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.common import add_product, from_chunks, to_chunks

MIN_LOG_DECAY = -110.0
"""exp(-110) is 0 in float32. Cutting there keeps cumulative sums precise, and finite for -inf."""


class Decay(ABC):
    """`from_start` is the decay from the chunk's start through a token, `to_end` that from after the token
    to the chunk's end: `[N, M, C, 1 or K]`, or None where nothing decays.

    `type(decay)(*decay.saved)` is an equal object: what to save for the backward.
    """

    saved: tuple[Tensor | None, ...]
    from_start: Tensor | None
    to_end: Tensor | None

    def scale_from_start(self, x: Tensor) -> Tensor:
        """Tokens, stacked or not, times `from_start`; without decay, x itself."""
        return _scale(x, self.from_start)

    def scale_to_end(self, x: Tensor) -> Tensor:
        """Tokens, stacked or not, times `to_end`; without decay, x itself."""
        return _scale(x, self.to_end)

    def keep(self, state: Tensor, n: int) -> Tensor:
        """A state `[M, K, V]` times the decay of the whole of chunk n."""
        return state if self.from_start is None else state * self.from_start[n, :, -1, :, None]

    @abstractmethod
    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """`sum_c left_ic right_jc exp(g_(j+1)c + ... + g_ic)` for tokens i >= j, else 0, of each two sets."""

    @abstractmethod
    def resolve(self, x: Tensor) -> Tensor:
        """`[..., K]` as finely as the decays are told apart: itself, or its sum over channels `[..., 1]`."""

    @abstractmethod
    def backward(
        self,
        d_pairs: Tensor,
        left: Tensor,
        right: Tensor,
        d_left: Tensor,
        d_right: Tensor,
        states: Tensor,
        d_states: Tensor,
        weighted: tuple[Tensor, Tensor] | None,
    ) -> Tensor | None:
        """Gradient of the log-decays in chunks, `[N, M, C, 1 or K]`; None without `weighted`.

        `d_left` and `d_right` come with the gradients through `scale_from_start(left)` and
        `scale_to_end(right)`; those through the products are added to them. `states` are those that `keep`
        decayed, `d_states` the gradients of its results, `[N, M, K, V]`. `weighted` are `d_pairs * products`
        and `resolve(right * d_right)`. `d_pairs` and `weighted` are overwritten.

        The gradient of a log-decay is a sum of values times their gradients, over all that decays by it.
        Nothing that does not decay takes part, not even to cancel: rounding errors of large terms would
        hide the small gradients of strong decay. So pairs of a token with itself are left out.
        """


def make_decay(g: Tensor | None, like: Tensor) -> Decay:
    """From log-decays g, `[B, T, H]`, `[B, T, H, K]` or None, for chunks `like` `[N, M, C, D]`."""
    C = like.shape[2]
    if g is not None and g.dim() == 4:
        return ChannelDecay(to_chunks(g, C).exp_())
    causal = torch.ones(C, C, dtype=torch.bool, device=like.device).tril()
    if g is None:
        return HeadDecay(causal.to(like.dtype), None, None)
    gamma = to_chunks(g.clamp(min=MIN_LOG_DECAY), C).cumsum_(-1)
    # Masked before the exponential: above the diagonal the difference is positive and may overflow.
    difference = gamma.unsqueeze(-1) - gamma.unsqueeze(-2)
    pairs = difference.masked_fill_(~causal, -torch.inf).exp_()
    to_end = (gamma[..., -1:] - gamma).exp_()
    return HeadDecay(pairs, gamma.exp_().unsqueeze(-1), to_end.unsqueeze(-1))


def log_decay_gradient(d_g: Tensor | None, g: Tensor | None) -> Tensor | None:
    """What `Decay.backward` returned, in the layout and type of g; 0 where g was cut."""
    if d_g is None or g is None:
        return None
    B, T, H = g.shape[:3]
    return from_chunks(d_g, (B, T, H), g.dtype).view(g.shape).masked_fill(g < MIN_LOG_DECAY, 0)


class HeadDecay(Decay):
    """One decay a head, or none. `pairs` `[N, M, C, C]` or `[C, C]` is `exp(gamma_i - gamma_j)` for i >= j,
    else 0, with gamma the cumulative sum of g from the chunk's start."""

    def __init__(self, pairs: Tensor, from_start: Tensor | None, to_end: Tensor | None):
        self.saved = (pairs, from_start, to_end)
        self.pairs, self.from_start, self.to_end = pairs, from_start, to_end

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """See `Decay`."""
        return self._decay(torch.matmul(left, right.mT))

    def resolve(self, x: Tensor) -> Tensor:
        """See `Decay`."""
        return x.sum(-1, keepdim=True)

    def backward(
        self,
        d_pairs: Tensor,
        left: Tensor,
        right: Tensor,
        d_left: Tensor,
        d_right: Tensor,
        states: Tensor,
        d_states: Tensor,
        weighted: tuple[Tensor, Tensor] | None,
    ) -> Tensor | None:
        """See `Decay`."""
        d_g = None
        if weighted is not None and self.from_start is not None:
            N, M, C, _ = self.from_start.shape
            per_pair = _add_sets(_by_sets(weighted[0], C).transpose(3, 4).flatten(2, 3))
            per_pair.diagonal(dim1=-2, dim2=-1).zero_()
            per_key = _add_sets(weighted[1].view(N, M, -1, C, 1))
            per_query = _add_sets(self.resolve(left * d_left).view(N, M, -1, C, 1))
            per_state = self.from_start[:, :, -1] * (states * d_states).sum((-2, -1)).unsqueeze(-1)
            d_gamma = per_query + (per_pair.sum(-1) - per_pair.sum(-2)).unsqueeze(-1)
            earlier_keys = functional.pad(per_key[:, :, :-1].cumsum(2), (0, 0, 1, 0))
            d_g = d_gamma.flip(2).cumsum_(2).flip(2) + earlier_keys + per_state.unsqueeze(2)
        self._decay(d_pairs)
        add_product(d_left, d_pairs, right)
        add_product(d_right, d_pairs.mT, left)
        return d_g

    def _decay(self, pairs: Tensor) -> Tensor:
        C = self.pairs.shape[-1]
        _by_sets(pairs, C).mul_(self.pairs.view(*self.pairs.shape[:-2], 1, C, 1, C))
        return pairs


class ChannelDecay(Decay):
    """One decay a head and key channel, from the factors `exp(g)` of the single tokens, `[N, M, C, K]`.

    With a factor for each channel a pair's decay cannot be taken out of its product, and splitting it into
    `exp(gamma_i)` and `exp(-gamma_j)` overflows. So the triangle of pairs is built by halving: of the pairs
    across the middle of a block, the later token decays from the middle and the earlier one up to it, which
    is a product of two matrices; the two halves of the block are blocks of the next level, down to single
    tokens. All factors are products of `exp(g)`, never quotients, and the gradients are sums of terms that
    do decay: exact for a decay of any strength, to 0.
    """

    def __init__(self, once: Tensor):
        N, M, C, K = once.shape
        self.saved, self.shape = (once,), once.shape
        # Of each level: what the first halves decay to the middle, what the second halves decay from it.
        self.levels: list[tuple[Tensor, Tensor]] = []
        self.from_start, self.to_end = once.clone(), torch.ones_like(once)
        half = 1
        while half < C:
            starts, ends = (x.view(N, M, -1, 2, half, K) for x in (self.from_start, self.to_end))
            to_middle, from_middle = ends[:, :, :, 0].clone(), starts[:, :, :, 1].clone()
            ends[:, :, :, 0] *= from_middle[:, :, :, -1:]
            starts[:, :, :, 1] *= starts[:, :, :, 0, -1:]
            self.levels.append((to_middle, from_middle))
            half *= 2

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """See `Decay`."""
        N, M, C, K = self.shape
        lefts, rights = left.view(N, M, -1, 1, C, K), right.view(N, M, 1, -1, C, K)
        pairs = right.new_zeros(N, M, lefts.shape[2] * C, rights.shape[3] * C)
        _diagonal(pairs, C).copy_((lefts * rights).sum(-1))
        for to_middle, from_middle in self.levels:
            later, earlier = _decayed(left, from_middle, 1), _decayed(right, to_middle, 0)
            block = torch.matmul(later.flatten(3, 4), earlier.flatten(3, 4).mT)
            _across(pairs, C, to_middle.shape[3]).copy_(block.view(*later.shape[:5], *earlier.shape[3:5]))
        return pairs

    def resolve(self, x: Tensor) -> Tensor:
        """See `Decay`."""
        return x

    def backward(
        self,
        d_pairs: Tensor,
        left: Tensor,
        right: Tensor,
        d_left: Tensor,
        d_right: Tensor,
        states: Tensor,
        d_states: Tensor,
        weighted: tuple[Tensor, Tensor] | None,
    ) -> Tensor | None:
        """See `Decay`. `d_start` and `d_end` are the gradients of the logarithms of the cumulative decays,
        first of whole chunks, then of the halves that these are made of, at last of single tokens."""
        assert self.from_start is not None
        N, M, C, K = self.shape
        d_start = _add_sets((left * d_left).view(N, M, -1, C, K))
        d_start[:, :, -1] += self.from_start[:, :, -1] * (states * d_states).sum(-1)
        d_end = _add_sets((right * d_right if weighted is None else weighted[1]).view(N, M, -1, C, K))
        for to_middle, from_middle in reversed(self.levels):
            d_starts, d_ends = (x.view(N, M, -1, 2, *to_middle.shape[3:]) for x in (d_start, d_end))
            d_wholes = torch.stack((d_starts[:, :, :, 1].sum(3), d_ends[:, :, :, 0].sum(3)), 3)
            d_starts[:, :, :, :, -1] += d_wholes

            later, earlier = _decayed(left, from_middle, 1), _decayed(right, to_middle, 0)
            d_block = _across(d_pairs, C, to_middle.shape[3]).flatten(3, 4).flatten(4, 5)
            d_later = torch.matmul(d_block, earlier.flatten(3, 4)).view(later.shape)
            d_earlier = torch.matmul(d_block.mT, later.flatten(3, 4)).view(earlier.shape)
            d_starts[:, :, :, 1] += (later * d_later).sum(3)
            d_ends[:, :, :, 0] += _add_sets(earlier * d_earlier, 3)
            _halves(d_left, from_middle, 1).addcmul_(d_later, from_middle.unsqueeze(3))
            _halves(d_right, to_middle, 0).addcmul_(d_earlier, to_middle.unsqueeze(3))
        lefts, d_lefts = (x.view(N, M, -1, C, K) for x in (left, d_left))
        rights, d_rights = (x.view(N, M, -1, C, K).unbind(2) for x in (right, d_right))
        for to_right, one, d_one in zip(_diagonal(d_pairs, C).unbind(3), rights, d_rights, strict=True):
            d_lefts.addcmul_(to_right.unsqueeze(-1), one.unsqueeze(2))
            d_one.add_(_add_sets(to_right.unsqueeze(-1) * lefts))
        return None if weighted is None else d_start


def _scale(x: Tensor, factor: Tensor | None) -> Tensor:
    """Tokens `[N, M, R C, D]` times `[N, M, C, 1 or D]`."""
    if factor is None:
        return x
    N, M, C, _ = factor.shape
    return (x.reshape(N, M, -1, C, x.shape[-1]) * factor.unsqueeze(2)).view(x.shape)


def _add_sets(x: Tensor, dim: int = 2) -> Tensor:
    """The sum over the sets of `[N, M, R, ...]`."""
    return reduce(torch.add, x.unbind(dim))


def _by_sets(pairs: Tensor, C: int) -> Tensor:
    """Pairs `[N, M, R C, L C]` as `[N, M, R, C, L, C]`: a view."""
    N, M, rows, columns = pairs.shape
    return pairs.view(N, M, rows // C, C, columns // C, C)


def _diagonal(pairs: Tensor, C: int) -> Tensor:
    """The pairs of a token with itself, `[N, M, R, L, C]`: a view."""
    return _by_sets(pairs, C).diagonal(dim1=3, dim2=5)


def _halves(x: Tensor, factor: Tensor, which: int) -> Tensor:
    """The first (0) or second (1) halves of the blocks that `factor` `[N, M, blocks, C/2, K]` is of, in
    tokens `[N, M, R C, K]`: a view `[N, M, blocks, R, C/2, K]`."""
    N, M, blocks, half, K = factor.shape
    return x.view(N, M, -1, blocks, 2, half, K)[:, :, :, :, which].transpose(2, 3)


def _decayed(x: Tensor, factor: Tensor, which: int) -> Tensor:
    """Those halves times their factor, contiguous."""
    halves = _halves(x, factor, which)
    return torch.mul(halves, factor.unsqueeze(3), out=x.new_empty(halves.shape))


def _across(pairs: Tensor, C: int, half: int) -> Tensor:
    """The pairs across the middles of blocks of `2 half` tokens, in `[N, M, R C, L C]`: a view
    `[N, M, blocks, R, half, L, half]`."""
    N, M, rows, columns = pairs.shape
    blocks = C // (2 * half)
    split = pairs.view(N, M, rows // C, blocks, 2, half, columns // C, blocks, 2, half)
    return split[:, :, :, :, 1, :, :, :, 0].diagonal(dim1=3, dim2=6).permute(0, 1, 6, 2, 3, 4, 5)

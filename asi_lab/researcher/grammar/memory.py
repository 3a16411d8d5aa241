"""The recurrent memory: decay, write strength and the rule that updates the state."""

from __future__ import annotations

from asi_lab.researcher.grammar.genome import Genome
from asi_lab.researcher.grammar.part import Part, code, lines

DECAY_INIT = {
    "none": "",
    "fixed": code("""
        # Head 0 forgets 1/32 per token, each next head half of that (RetNet).
        log_decay = torch.log1p(-(2.0 ** (-5.0 - torch.arange(num_heads))))
        self.register_buffer("log_decay", log_decay, persistent=False)
    """),
    "head": code("""
        # One retention per head, starting from 7/8 (local) to 255/256 (long range).
        retention = 1.0 - 2.0 ** -torch.linspace(3.0, 8.0, num_heads)
        self.retention = nn.Parameter(torch.logit(retention))
    """),
    "data": code("""
        # Step sizes start log-uniform in [1e-3, 1e-1], rates uniform in [1, 16].
        step = torch.empty(num_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.decay_proj = nn.Linear(width, num_heads, bias=False)
        self.decay_bias = nn.Parameter(torch.log(torch.expm1(step)))
        rate = torch.empty(num_heads).uniform_(1.0, 16.0)
        self.decay_log_rate = nn.Parameter(rate.log())
    """),
}

DECAY_FORWARD = {
    "none": "",
    "fixed": "g = self.log_decay.expand(*x.shape[:2], -1)",
    "head": code("""
        g = nn.functional.logsigmoid(self.retention).expand(*x.shape[:2], -1)
    """),
    "data": code("""
        step = nn.functional.softplus(self.decay_proj(x) + self.decay_bias)
        g = -self.decay_log_rate.exp() * step
    """),
}

DECAY_NOTES = {
    "none": "memory: never forgets",
    "fixed": "decay: a_t is a fixed constant per head, from 31/32 upwards",
    "head": "decay: a_t = sigmoid(r), one learned retention r per head",
    "data": "decay: a_t = exp(-exp(A) softplus(w x_t + d)), per head and token",
}

BETA_FORWARD = {
    "none": "",
    "sigmoid": "beta = torch.sigmoid(self.beta_proj(x))",
    "double": "beta = 2.0 * torch.sigmoid(self.beta_proj(x))",
}

BETA_NOTES = {
    "none": "writes: full strength for every token",
    "sigmoid": "writes: strength b_t in (0, 1) per head and token",
    "double": "writes: strength b_t in (0, 2), so eigenvalues of the update may be negative",
}


def decay(genome: Genome) -> Part:
    """The log decay `g`, at most zero."""
    return Part(DECAY_INIT[genome.decay], DECAY_FORWARD[genome.decay], DECAY_NOTES[genome.decay])


def beta(genome: Genome) -> Part:
    """The write strength."""
    used = genome.beta != "none"
    return Part(
        init="self.beta_proj = nn.Linear(width, num_heads, bias=False)" if used else "",
        forward=BETA_FORWARD[genome.beta],
        note=BETA_NOTES[genome.beta],
    )


def padding(genome: Genome) -> Part:
    """Padded positions neither write to the memory nor fade it."""
    return Part(
        forward=lines(
            "if attention_mask is not None:  # padding leaves no trace in the memory",
            "    k = k.masked_fill(padded[..., None], 0.0)",
            "    v = v.masked_fill(padded[..., None], 0.0)",
            "    g = g.masked_fill(padded, 0.0)" if genome.decay != "none" else "",
        )
    )


def rule(genome: Genome) -> Part:
    """The state update and its read-out `o`."""
    decayed = genome.decay != "none"
    scale = ", scale=1.0" if full_scale(genome) else ""
    if genome.rule == "delta":
        kernel = "gated_delta_rule" if decayed else "delta_rule"
        arguments = "q, k, v, g, beta" if decayed else "q, k, v, beta"
        return Part(forward=f"o, _ = {kernel}({arguments}{scale})", kernels=(kernel,))
    written = "v" if genome.beta == "none" else "beta[..., None] * v"
    g = ", g" if decayed else ""
    if genome.normaliser:
        forward = lines(
            "ones = torch.ones_like(v[..., :1])  # its read-out is the sum of the weights",
            f"o, _ = linear_attention(q, k, torch.cat([{written}, ones], dim=-1){g})",
            "o = o[..., :-1] / (o[..., -1:] + 1e-6)",
        )
    else:
        forward = f"o, _ = linear_attention(q, k, {written}{g}{scale})"
    return Part(forward=forward, kernels=("linear_attention",))


def full_scale(genome: Genome) -> bool:
    """Whether the read-out goes without the usual factor 1 / sqrt(K).

    With keys of norm at most one it already has the size of a value; shrinking it would drown it
    among other paths. Where an output norm follows at once, the factor makes no difference.
    """
    alone = genome.paths == ("memory",) and genome.residual == "none"
    normalised = genome.normaliser or (alone and genome.out_norm != "none")
    return genome.qk_norm in ("l2", "sum") and not normalised


def equations(genome: Genome) -> str:
    """The recurrence in plain text, for the docstring."""
    a = "a_t " if genome.decay != "none" else ""
    b = "b_t " if genome.beta != "none" else ""
    if genome.rule == "delta":
        update = f"S_t = {a}S_(t-1) (I - {b}k_t k_t^T) + {b}v_t k_t^T"
    else:
        update = f"S_t = {a}S_(t-1) + {b}v_t k_t^T"
    if genome.normaliser:
        return lines(update, f"z_t = {a}z_(t-1) + k_t", "o_t = S_t q_t / (z_t^T q_t)")
    return lines(update, "o_t = S_t q_t" if full_scale(genome) else "o_t = S_t q_t / sqrt(K)")


def summary(genome: Genome) -> str:
    """The memory in a few words, for the first line of the docstring."""
    if genome.rule == "delta":
        return "gated delta rule" if genome.decay != "none" else "delta rule"
    return "decaying linear attention" if genome.decay != "none" else "additive linear attention"

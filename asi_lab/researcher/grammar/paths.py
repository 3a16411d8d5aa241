"""Paths beside the memory and how they are mixed: FIR filters, router, residual.

Router designs follow the ideas of section 3.2 of the ASI-ARCH paper (arXiv:2507.18074): two-stage
routing with a copy path, parallel sigmoid gates, guaranteed floors, a learned temperature, routing
on the content of the paths, and an entropy loss that keeps all paths alive.
"""

from __future__ import annotations

from asi_lab.researcher.grammar.genome import Genome
from asi_lab.researcher.grammar.part import Part, code, lines, number

FIR = code('''
    class CausalFIR(nn.Module):
        """Depthwise causal filter over time that starts as the identity."""

        def __init__(self, channels: int, width: int) -> None:
            super().__init__()
            weight = torch.zeros(channels, width)
            weight[:, -1] = 1.0  # the last tap is the present token
            self.weight = nn.Parameter(weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return short_convolution(x, self.weight)
''')

VARIABLES = {"copy": "v", "short": "short", "long": "long", "memory": "o"}
"""The variable that holds each path's output."""

ROUTER_NOTES = {
    "softmax": "router: softmax over {paths}",
    "sigmoid": "router: independent sigmoid gates for {paths}",
    "hierarchical": "router: first copy against context, then a softmax over {paths}",
}

INPUT_NOTES = {
    "head": "one learned preference per head",
    "token": "decided per head and token",
    "content": "decided per head and token, also by the strength of each path",
}

RESIDUAL_NOTES = {
    "fixed": "residual: 0.1 v_t is always added",
    "head": "residual: v_t is added with a learned weight per head",
    "gate": "residual: v_t is added through a sigmoid gate per head and token",
}


def filters(genome: Genome) -> Part:
    """Short and long FIR filters on the values."""
    widths = {"short": genome.short_fir, "long": genome.long_fir}
    used = {name: width for name, width in widths.items() if width}
    return Part(
        init=lines(*(f"self.{name}_fir = CausalFIR(value_dim, {used[name]})" for name in used)),
        forward=lines(*(f"{name} = self.{name}_fir(v.flatten(-2)).view_as(v)" for name in used)),
        note=f"FIR filters on the values: {' and '.join(map(str, used.values()))} tokens" if used else "",
        kernels=("short_convolution",) if used else (),
        helpers=(FIR,) if used else (),
    )


def mixture(genome: Genome) -> Part:
    """Joins the paths into `o`: a router where there is one, otherwise a plain sum."""
    if genome.router == "none":
        extra = [VARIABLES[path] for path in genome.paths if path != "memory"]
        forward = " + ".join(["o = o", *extra]) if extra else ""
        return Part(forward=forward, note=f"paths: {_listed(genome.paths)} are added" if extra else "")
    return Part(
        init=_router_init(genome),
        forward=lines(
            f"paths = torch.stack([{', '.join(VARIABLES[path] for path in genome.paths)}], dim=-2)",
            _logits(genome),
            _weights(genome),
            "o = (weights[..., None] * paths).sum(dim=-2)",
            _entropy(genome),
        ),
        note=_router_note(genome),
    )


def residual(genome: Genome) -> Part:
    """The values added to the output, past memory and router."""
    match genome.residual:
        case "fixed":
            return Part("", "o = o + 0.1 * v", RESIDUAL_NOTES["fixed"])
        case "head":
            init = "self.residual = nn.Parameter(torch.full((num_heads, 1), 0.1))"
            return Part(init, "o = o + self.residual * v", RESIDUAL_NOTES["head"])
        case "gate":
            init = lines(
                "self.residual_proj = nn.Linear(width, num_heads, bias=False)",
                "self.residual_bias = nn.Parameter(torch.full((num_heads,), -2.0))",
            )
            forward = lines(
                "share = torch.sigmoid(self.residual_proj(x) + self.residual_bias)",
                "o = o + share[..., None] * v",
            )
            return Part(init, forward, RESIDUAL_NOTES["gate"])
    return Part()


def _router_init(genome: Genome) -> str:
    count = len(genome.paths)
    start = [0.0] * (count - 1) + [1.0]
    if genome.router == "hierarchical":
        start[0] = -1.0
    return lines(
        f"preference = torch.tensor({start})  # {_listed(genome.paths)}",
        "self.router_bias = nn.Parameter(preference.repeat(num_heads, 1))",
        f"self.router = nn.Linear(width, num_heads * {count}, bias=False)"
        if genome.router_input != "head"
        else "",
        f"self.router_content = nn.Parameter(torch.zeros(num_heads, {count}, {count}))"
        if genome.router_input == "content"
        else "",
        "self.router_temperature = nn.Parameter(torch.full((num_heads, 1), 0.4))"
        if genome.temperature == "learned"
        else "",
        f"self.router_floor = nn.Parameter(torch.zeros(num_heads, {count}))"
        if genome.floor == "learned"
        else "",
    )


def _logits(genome: Genome) -> str:
    if genome.router_input == "head":
        return "logits = self.router_bias"
    return lines(
        "logits = self.router(x).unflatten(-1, (self.num_heads, -1)) + self.router_bias",
        code("""
            strength = (paths.square().mean(dim=-1) + 1e-6).sqrt()
            logits = logits + torch.einsum("blhp,hpr->blhr", strength, self.router_content)
        """)
        if genome.router_input == "content"
        else "",
        "logits = logits / (nn.functional.softplus(self.router_temperature) + 0.1)"
        if genome.temperature == "learned"
        else "",
    )


def _weights(genome: Genome) -> str:
    if genome.floor == "learned":
        most = number(genome.floor_percent / 100)
        learned = f"floor = {most} * torch.sigmoid(self.router_floor)"
        return lines(learned, LEARNED_FLOOR[genome.router])
    floor = genome.floor_percent / 100 if genome.floor == "fixed" else 0.0
    paths = len(genome.paths)

    def floored(share: str, branches: int) -> str:
        return f"{number(floor)} + {number(1 - branches * floor)} * {share}" if floor else share

    match genome.router:
        case "softmax":
            return f"weights = {floored('torch.softmax(logits, dim=-1)', paths)}"
        case "sigmoid":
            return f"weights = {floored('torch.sigmoid(logits)', 1)}"
    return lines(
        f"copy = {floored('torch.sigmoid(logits[..., :1])', 2)}",
        f"context = {floored('torch.softmax(logits[..., 1:], dim=-1)', paths - 1)}",
        "weights = torch.cat([copy, (1.0 - copy) * context], dim=-1)",
    )


LEARNED_FLOOR = {
    "softmax": code("""
        spare = 1.0 - floor.sum(dim=-1, keepdim=True)
        weights = floor + spare * torch.softmax(logits, dim=-1)
    """),
    "sigmoid": "weights = floor + (1.0 - floor) * torch.sigmoid(logits)",
    "hierarchical": code("""
        least, floor = floor[..., :1], floor[..., 1:]
        copy = least + (1.0 - 2.0 * least) * torch.sigmoid(logits[..., :1])
        spare = 1.0 - floor.sum(dim=-1, keepdim=True)
        context = floor + spare * torch.softmax(logits[..., 1:], dim=-1)
        weights = torch.cat([copy, (1.0 - copy) * context], dim=-1)
    """),
}


def _entropy(genome: Genome) -> str:
    """The auxiliary loss: zero for an even mixture, its full weight for a collapsed one."""
    if not genome.entropy_permille:
        return ""
    if genome.router == "sigmoid":
        measure = lines(
            "open_, shut = weights.clamp_min(1e-6), (1.0 - weights).clamp_min(1e-6)",
            "entropy = torch.special.entr(open_) + torch.special.entr(shut)",
            "entropy = entropy.mean(dim=-1) / math.log(2)",
        )
    else:
        measure = lines(
            "entropy = torch.special.entr(weights.clamp_min(1e-6)).sum(dim=-1)",
            f"entropy = entropy / math.log({len(genome.paths)})",
        )
    padded = lines(
        "if attention_mask is not None:  # padded positions are not penalised",
        "    entropy = entropy.masked_fill(padded, 1.0)",
    )
    loss = f"aux_loss = {number(genome.entropy_permille / 1000)} * (1.0 - entropy.mean())"
    return lines(measure, padded if genome.router_input != "head" else "", loss)


def _router_note(genome: Genome) -> str:
    routed = genome.paths[1:] if genome.router == "hierarchical" else genome.paths
    note = ROUTER_NOTES[genome.router].format(paths=_listed(routed))
    note += f"; {INPUT_NOTES[genome.router_input]}"
    if genome.floor != "none":
        floor = "learned floor of up to" if genome.floor == "learned" else "floor of"
        where = "branch and stage" if genome.router == "hierarchical" else "path"
        note += f"; {floor} {genome.floor_percent} % per {where}"
    if genome.temperature == "learned":
        note += "; learned temperature"
    if genome.entropy_permille:
        note += f"; entropy loss {number(genome.entropy_permille / 1000)}"
    return note


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)

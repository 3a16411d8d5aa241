"""Paths beside the memory and how they are mixed: FIR filters, router, residual.

Router designs follow the ideas of section 3.2 of the ASI-ARCH paper (arXiv:2507.18074): two-stage
routing with a copy path, parallel sigmoid gates, guaranteed floors, a learned temperature, routing
on the content of the paths, and an entropy loss that keeps all paths alive.
"""

from __future__ import annotations

from asi_lab.researcher.grammar.genome import Genome
from asi_lab.researcher.grammar.part import Part, code, lines, number

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


TEMPERATURE = "temperature = nn.functional.softplus(self.router_temperature) + 0.1"

LEARNED_FLOORS = code("""
    least, floor = floor[..., :1], floor[..., 1:]
    copy = least + (1.0 - 2.0 * least) * torch.sigmoid(logits[..., :1])
    spare = 1.0 - floor.sum(dim=-1, keepdim=True)
    context = floor + spare * torch.softmax(logits[..., 1:], dim=-1)
""")
"""The floors of the hierarchical router, where they are learned."""

COLUMNS = 80
"""The width of a line of `forward`, which is indented by 8."""


def filters(genome: Genome) -> Part:
    """Short and long FIR filters on the values, in one pass."""
    widths = {"short": genome.short_fir, "long": genome.long_fir}
    used = {name: width for name, width in widths.items() if width}
    if not used:
        return Part()
    weights = ", ".join(f"self.{name}_fir" for name in used)
    outputs = ", ".join(used) if len(used) > 1 else f"({next(iter(used))},)"
    return Part(
        init=lines(
            "# A filter starts as the identity: its last tap is the present token.",
            *(
                f"self.{name}_fir = nn.Parameter(torch.eye({width})[-1].repeat(value_dim, 1))"
                for name, width in used.items()
            ),
        ),
        forward=f"{outputs} = fir_bank(v, [{weights}])",
        note=f"FIR filters on the values: {' and '.join(map(str, used.values()))} tokens",
        kernels=("fir_bank",),
    )


def mixture(genome: Genome) -> Part:
    """Joins the paths into `o`: a router where there is one, otherwise a plain sum.

    `path_mix` routes and mixes, but not for the hierarchical router: its floors hold in each stage.
    """
    if genome.router == "none":
        extra = [VARIABLES[path] for path in genome.paths if path != "memory"]
        forward = " + ".join(["o = o", *extra]) if extra else ""
        return Part(forward=forward, note=f"paths: {_listed(genome.paths)} are added" if extra else "")
    hierarchical = genome.router == "hierarchical"
    return Part(
        init=_router_init(genome),
        forward=lines(
            f"paths = [{', '.join(VARIABLES[path] for path in genome.paths)}]",
            _logits(genome),
            TEMPERATURE if genome.temperature == "learned" else "",
            f"floor = {number(genome.floor_percent / 100)} * torch.sigmoid(self.router_floor)"
            if genome.floor == "learned"
            else "",
            _stages(genome) if hierarchical else _mix(genome),
            _entropy(genome),
        ),
        note=_router_note(genome),
        kernels=() if hierarchical else ("path_mix",),
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
        "self.router_temperature = nn.Parameter(torch.full((num_heads,), 0.4))"
        if genome.temperature == "learned"
        else "",
        f"self.router_floor = nn.Parameter(torch.zeros(num_heads, {count}))"
        if genome.floor == "learned"
        else "",
    )


def _logits(genome: Genome) -> str:
    if genome.router_input == "head":
        everywhere = "" if genome.router == "hierarchical" else ".expand(*x.shape[:2], -1, -1)"
        return f"logits = self.router_bias{everywhere}"
    return lines(
        "logits = self.router(x).unflatten(-1, (self.num_heads, -1)) + self.router_bias",
        code("""
            strength = torch.stack([path.square().mean(dim=-1) for path in paths], dim=-1)
            strength = (strength + 1e-6).sqrt()
            logits = logits + torch.einsum("blhp,hpr->blhr", strength, self.router_content)
        """)
        if genome.router_input == "content"
        else "",
    )


def _mix(genome: Genome) -> str:
    """A softmax or sigmoid gates over the paths, with floors and temperature."""
    arguments = [
        "paths",
        "logits",
        'routing="sigmoid"' if genome.router == "sigmoid" else "",
        "temperature=temperature" if genome.temperature == "learned" else "",
        {"none": "", "fixed": f"floor={_floor(genome)}", "learned": "floor=floor"}[genome.floor],
    ]
    arguments = [argument for argument in arguments if argument]
    outputs = "o, _, entropy" if genome.entropy_permille else "o, _, _"
    call = f"{outputs} = path_mix({', '.join(arguments)})"
    if len(call) <= COLUMNS:
        return call
    return lines(f"{outputs} = path_mix(", *(f"    {argument}," for argument in arguments), ")")


def _stages(genome: Genome) -> str:
    """Copy against context, then a softmax over the context, each with floors and temperature."""
    if genome.floor == "learned":
        routed = LEARNED_FLOORS
    else:
        floor = _floor(genome)

        def floored(share: str, branches: int) -> str:
            return f"{number(floor)} + {number(1 - branches * floor)} * {share}" if floor else share

        routed = lines(
            f"copy = {floored('torch.sigmoid(logits[..., :1])', 2)}",
            f"context = {floored('torch.softmax(logits[..., 1:], dim=-1)', len(genome.paths) - 1)}",
        )
    return lines(
        "logits = logits / temperature[:, None]" if genome.temperature == "learned" else "",
        routed,
        "weights = torch.cat([copy, (1.0 - copy) * context], dim=-1)",
        "o = (weights[..., None] * torch.stack(paths, dim=-2)).sum(dim=-2)",
    )


def _floor(genome: Genome) -> float:
    """The share that is fixed for a path, or for a branch of a stage."""
    return genome.floor_percent / 100 if genome.floor == "fixed" else 0.0


def _entropy(genome: Genome) -> str:
    """The auxiliary loss: zero for an even mixture, its full weight for a collapsed one."""
    if not genome.entropy_permille:
        return ""
    paths = len(genome.paths)
    most = f"({paths} * math.log(2))" if genome.router == "sigmoid" else f"math.log({paths})"
    return lines(
        "entropy = torch.special.entr(weights.clamp_min(1e-6)).sum(dim=-1)"
        if genome.router == "hierarchical"
        else "",
        f"entropy = entropy / {most}",
        code("""
            if attention_mask is not None:  # padded positions are not penalised
                entropy = entropy.masked_fill(padded, 1.0)
        """)
        if genome.router_input != "head"
        else "",
        f"aux_loss = {number(genome.entropy_permille / 1000)} * (1.0 - entropy.mean())",
    )


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

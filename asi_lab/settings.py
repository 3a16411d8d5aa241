"""The settings of a lab as frozen structs: what `lab.toml` and the presets may say.

Each field carries its own description, from which `config.py` writes the comments of `lab.toml` and
its error messages. A default stands here only where it is the same for every preset; the rest is
given by `presets/*.toml`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


def about(text: str) -> Meta:
    """The description of a setting, shown in `lab.toml` and in messages."""
    return Meta(description=text)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections: frozen, and strict about unknown keys."""


class Search(Section, frozen=True, kw_only=True):
    """The candidate pool and the two-level draw (paper, section 2.2 and A.1)."""

    pool: Annotated[Positive, about("Best architectures kept in the pool.")] = 50
    cold_start: Annotated[Positive, about("Candidates made before the pool is first updated.")] = 200
    update_every: Annotated[
        Positive, about("After that, the pool is updated after every so many candidates.")
    ] = 50
    parent_ranks: Annotated[
        Positive, about("A parent is drawn uniformly from this many best of the pool.")
    ] = 10
    references: Annotated[
        NonNegative, about("References drawn from the ranks below; fewer where absent.")
    ] = 4
    novelty_retries: Annotated[NonNegative, about("New proposals asked for after a near-duplicate.")] = 8
    duplicate_similarity: Annotated[
        Fraction, about("Motivations at least this similar (cosine) count as duplicates.")
    ] = 0.985
    patience: Annotated[
        NonNegative,
        about("Candidates without a gain beyond noise after which the search escalates a step; 0: never."),
    ] = 50
    max_starts: Annotated[
        Positive,
        about("A trial that was cut off this often without getting on is given up as interrupted."),
    ] = 3
    slots: Annotated[
        NonNegative,
        about(
            "Trials at the same time, each on train.ranks GPUs or train.threads cores of its own; 0: as many "
            "as there is room for. Draws lag by two for each beyond the first."
        ),
    ] = 1
    controls: Annotated[
        tuple[Literal["best_of_n", "sequential"], ...],
        about(
            "Controls beside the search, which say what it adds: best_of_n proposes from the seed alone, "
            "sequential from the best that it has found itself."
        ),
    ] = ()
    control_share: Annotated[Fraction, about("Share of the candidates that each of `controls` takes.")] = 0.1


class Data(Section, frozen=True, kw_only=True):
    """Text and tokenizer. Every candidate of a lab sees the same tokens in the same order."""

    source: Annotated[
        str, about("`builtin` (documentation installed here), `text:GLOB` or `hf:NAME[:CONFIG]` (streamed).")
    ]
    tokenizer: Annotated[str, about("`byte`, `bpe:N` (trained on the training split) or `gpt2`.")]
    max_tokens: Annotated[Positive, about("Most tokens of the training shard.")] = 50_000_000

    @property
    def vocabulary(self) -> int:
        """Tokens that the tokenizer is to have; a trained one may end up with fewer."""
        kind, _, size = self.tokenizer.partition(":")
        return int(size) if kind == "bpe" else {"byte": 257, "gpt2": 50_257}[kind]


class ModelSettings(Section, frozen=True, kw_only=True):
    """The plain pre-norm language model around the candidate's layer."""

    layers: Annotated[Positive, about("Blocks.")]
    width: Annotated[Positive, about("Width of the residual stream.")]
    heads: Annotated[Positive, about("Heads of the candidate's layer; must divide the width.")]
    mlp_ratio: Annotated[
        NonNegativeFloat, about("Hidden size of the MLP over the width; 0 leaves it out.")
    ] = 8 / 3
    mlp: Annotated[Literal["swiglu", "gelu"], about("Kind of the MLP.")] = "swiglu"
    norm: Annotated[Literal["rms", "layer"], about("Pre-norm of every block and of the output.")] = "rms"
    tie_embeddings: Annotated[bool, about("Output head shares the token embedding.")] = True
    norm_eps: Annotated[PositiveFloat, about("Epsilon of the norms.")] = 1e-6
    init_std: Annotated[
        PositiveFloat, about("Standard deviation of embeddings and MLP weights at the start.")
    ] = 0.02


class Train(Section, frozen=True, kw_only=True):
    """Optimisation with AdamW."""

    steps: Annotated[Positive, about("Optimizer steps.")]
    batch: Annotated[Positive, about("Sequences in a step.")]
    context: Annotated[Positive, about("Tokens in a sequence.")]
    micro_batch: Annotated[Positive, about("Sequences in one forward pass; gradients are accumulated.")]
    learning_rate: Annotated[PositiveFloat, about("Peak learning rate.")]
    schedule: Annotated[Literal["wsd", "cosine"], about("Warm-up, stable, decay; or warm-up and cosine.")] = (
        "wsd"
    )
    warmup_steps: Annotated[NonNegative, about("Steps of linear warm-up.")]
    decay_fraction: Annotated[Fraction, about("Share of the steps in which wsd decays.")] = 0.2
    minimum_lr_fraction: Annotated[Fraction, about("Learning rate at the end, over the peak.")] = 0.1
    adam_beta1: Annotated[Fraction, about("AdamW beta 1.")] = 0.9
    adam_beta2: Annotated[Fraction, about("AdamW beta 2.")] = 0.95
    adam_eps: Annotated[PositiveFloat, about("AdamW epsilon.")] = 1e-8
    weight_decay: Annotated[NonNegativeFloat, about("Decoupled weight decay of matrices.")] = 0.1
    gradient_clip: Annotated[PositiveFloat, about("Largest norm of the gradient.")] = 1.0
    precision: Annotated[
        Literal["fp32", "bf16", "bf16_weights", "auto"],
        about(
            "fp32; bf16 products over fp32 weights (auto on a GPU); or bf16 weights, with gradients and "
            "updates in fp32."
        ),
    ] = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"],
        about("torch.compile of the blocks around the candidate's layer; auto is on for a GPU."),
    ] = "auto"
    recompute: Annotated[
        bool, about("Keep no activations for backward but those between blocks, and compute them again.")
    ] = False
    save_minutes: Annotated[
        NonNegativeFloat,
        about("Minutes of training after which a checkpoint is written to go on from; 0: never."),
    ] = 10.0
    ranks: Annotated[
        NonNegative, about("Processes that train one model together, a GPU each; 0: one for every GPU.")
    ] = 1
    threads: Annotated[
        NonNegative,
        about("CPU threads of a trial; 0 takes the physical cores, divided by search.slots."),
    ] = 0


class Evaluate(Section, frozen=True, kw_only=True):
    """What the scoring process measures, through lm-eval."""

    tasks: Annotated[
        tuple[str, ...],
        about(
            "Offline tasks (`asi_*`), any lm-eval task name, a folder of task YAML (with a slash), or "
            "`suite:exploration`, `suite:offline`."
        ),
    ]
    probes: Annotated[
        tuple[str, ...],
        about(
            "Probes (`probe_*`, or `suite:probes`): what a layer learns in seconds on synthetic streams; "
            "each is a task."
        ),
    ] = ()
    datasets: Annotated[
        str,
        about(
            "Folder with copies of lm-eval's data sets under their names on the hub, such as baber/piqa/; "
            "empty: the Hugging Face cache."
        ),
    ] = ""
    missing: Annotated[
        Literal["fail", "skip"],
        about("Where a data set cannot be had when the lab begins: refuse, or leave its task out for good."),
    ] = "fail"
    limit: Annotated[Positive, about("Most samples of a task.")] = 500
    batch: Annotated[Positive, about("Sequences in one forward pass.")] = 64
    loss_tokens: Annotated[Positive, about("Held-out tokens for the loss.")] = 65_536
    max_length: Annotated[Positive, about("Longest sequence; contexts are cut on the left.")] = 4096
    prefix_checks: Annotated[
        Positive, about("Positions at a mark that are asked for once more from the bare prefix.")
    ] = 16
    marks: Annotated[
        tuple[Fraction, ...],
        about("Shares of the training after which the held-out loss is measured."),
    ] = (0.1, 0.2, 0.35, 0.5, 0.75)
    mark_tokens: Annotated[Positive, about("Held-out tokens for the loss at a mark.")] = 8_192


class BaselineSettings(Section, frozen=True, kw_only=True):
    """References that are measured in this lab; how much their runs vary says what is noise."""

    references: Annotated[
        tuple[str, ...],
        about("Measured before the search starts: delta_net, gated_delta_net, and others of asi-lab race."),
    ] = ("delta_net", "gated_delta_net")
    bar: Annotated[
        str,
        about(
            "The reference that candidates have to beat; empty: that of the lowest mean loss at the start."
        ),
    ] = ""
    noise_freedom: Annotated[
        PositiveFloat,
        about("How alike the variances of architectures are, in degrees of freedom, by a recorded study."),
    ] = 3.5
    seeds: Annotated[int, Meta(ge=2), about("Seeds of each reference before the search starts.")] = 3
    max_seeds: Annotated[int, Meta(ge=2), about("Seeds of each reference in a long run.")] = 8
    grow_every: Annotated[Positive, about("One more seed of each after so many candidates.")] = 10


class Fitness(Section, frozen=True, kw_only=True):
    """How differences from the baseline become fitness (paper, section 3.1)."""

    scale: Annotated[PositiveFloat, about("Relative gain at which loss and benchmark parts saturate.")] = 0.10
    leak: Annotated[
        PositiveFloat, about("A loss this much under the baseline, relative to it, is discarded as a leak.")
    ] = 0.10


class Verify(Section, frozen=True, kw_only=True):
    """Claims: fresh runs of promoted candidates against the bar's (docs/verification.md)."""

    rungs: Annotated[
        tuple[str, ...],
        about("Scales beyond the lab's own, each with claims of its own: presets, or TOML files in the lab."),
    ] = ()
    share: Annotated[
        Fraction, about("Share of the trial time that goes into claims while the search goes on.")
    ] = 0.0
    bar_runs: Annotated[
        int,
        Meta(ge=24),
        about("Fresh runs of the bar that claims are made against; 48 where they are cheap."),
    ] = 24
    tune: Annotated[
        bool, about("Find the best learning rate of the bar and of each promoted candidate first.")
    ] = True
    quota: Annotated[Positive, about("Candidates promoted at a time where none is named.")] = 10
    random: Annotated[
        NonNegative,
        about("Candidates drawn by lot beside them, of which nothing is claimed: do the scales agree?"),
    ] = 2
    tasks: Annotated[
        tuple[str, ...],
        about(
            "Further tasks that fresh runs are measured on, beside the claims: `suite:generalization`, or "
            "others that are not among evaluate.tasks."
        ),
    ] = ()


class Judge(Section, frozen=True, kw_only=True):
    """The judge's mark from 1 to 10."""

    top: Annotated[
        Literal["paper", "bar"],
        about("Where the mark is 10: at Gated DeltaNet as in the paper, or at the lab's bar."),
    ] = "paper"


class Limits(Section, frozen=True, kw_only=True):
    """Hard limits of one trial."""

    trial_seconds: Annotated[PositiveFloat, about("Wall time of checks, training and scoring together.")]
    stall_seconds: Annotated[PositiveFloat, about("Silence after which a trial counts as hanging.")] = 120.0
    memory_gb: Annotated[PositiveFloat, about("Resident memory of a trial.")] = 16.0
    disk_gb: Annotated[PositiveFloat, about("Most a trial may write to disk.")] = 16.0
    processes: Annotated[Positive, about("Most processes and threads of a trial.")] = 512
    parameter_ratio: Annotated[
        PositiveFloat, about("Most parameters, over those of the seed architecture.")
    ] = 1.5
    time_ratio: Annotated[
        PositiveFloat, about("Longest training step of a layer, over that of the seed architecture.")
    ] = 10.0
    memory_ratio: Annotated[
        PositiveFloat, about("Most memory of that step, over that of the seed architecture.")
    ] = 10.0
    cpu_ratio: Annotated[
        PositiveFloat,
        about("Most processor time of a whole trial, over that of the seed architecture's."),
    ] = 30.0
    log_mb: Annotated[PositiveFloat, about("Most a trial may print, in MB.")] = 16.0
    checkpoints: Annotated[
        Literal["best", "all"], about("Trained weights that stay on disk: the best candidate's, or all.")
    ] = "best"


class Supervise(Section, frozen=True, kw_only=True):
    """When a training run is stopped early."""

    divergence: Annotated[
        PositiveFloat, about("Rise of the smoothed training loss over its lowest, in nats, that ends a run.")
    ] = 1.0
    least_progress: Annotated[
        Fraction,
        about("Share of what the baseline has learnt by a mark that a candidate must have learnt, at least."),
    ] = 0.1
    step_ratio: Annotated[
        PositiveFloat, about("Longest training step, over the baseline's (median of the last steps).")
    ] = 10.0
    compile_seconds: Annotated[PositiveFloat, about("Time from the start of training to the first step.")] = (
        600.0
    )
    prune: Annotated[
        bool, about("Stop candidates that lie too far over the baseline's curve, once that is calibrated.")
    ] = True
    false_kills: Annotated[
        Fraction,
        about("Pruning starts once the 95 % bound on the share of good candidates it kills is under this."),
    ] = 0.20
    spared: Annotated[
        Fraction, about("Share of the candidates that is never pruned, to go on measuring false kills.")
    ] = 0.1


Models = tuple[str, ...]


class AgentSettings(Section, frozen=True, kw_only=True):
    """Who fills the roles: language models, or without any the grammar, the measured rubric and the table."""

    models: Annotated[
        Models,
        about("Language models such as ollama:qwen3-coder:30b or openai:gpt-4.1; empty: the grammar alone."),
    ] = ()
    policy: Annotated[
        Literal["draw", "bandit"],
        about("How a planner is taken from its list: drawn, or by what their candidates became and cost."),
    ] = "draw"
    weights: Annotated[
        tuple[PositiveFloat, ...],
        about("Weights of the draw, one for each of `models`; empty: all the same."),
    ] = ()
    cost_weight: Annotated[
        Fraction, about("What the bandit takes off the dearest planner's mean reward for its price.")
    ] = 0.1
    planner: Annotated[Models, about("Other models for planning; empty: those of `models`.")] = ()
    coder: Annotated[Models, about("Other models for repairing code.")] = ()
    judge: Annotated[Models, about("Other models for judging.")] = ()
    analyst: Annotated[Models, about("Other models for analysis and summaries.")] = ()
    control: Annotated[
        Fraction, about("Share of the candidates that the grammar proposes all the same, as a control.")
    ] = 0.1
    ahead: Annotated[
        NonNegative,
        about(
            "Candidates planned, and as many repaired and explained, beside a trial; draws lag by twice that."
        ),
    ] = 4
    plan_retries: Annotated[NonNegative, about("New plans asked for after a repeated idea.")] = 3
    repairs: Annotated[NonNegative, about("Most repairs of a candidate by checker and debugger.")] = 3
    judge_samples: Annotated[Positive, about("Times the judge is asked; the median counts.")] = 3
    most_dollars: Annotated[
        NonNegativeFloat, about("Dollars after which the search pauses; 0: no limit.")
    ] = 0.0
    most_tokens: Annotated[NonNegative, about("Tokens after which the search pauses; 0: no limit.")] = 0
    candidate_tokens: Annotated[
        NonNegative, about("Tokens after which no model is asked for a candidate any more; 0: no limit.")
    ] = 400_000
    timeout_seconds: Annotated[PositiveFloat, about("Silence after which a call is given up.")] = 300.0
    context: Annotated[int, Meta(ge=8192), about("Most tokens of a conversation.")] = 32_768
    tags: Annotated[
        bool, about("Have models name the components of each architecture and where its idea came from.")
    ] = True
    embedder: Annotated[
        str,
        about(
            "What searches the cognition base: lexical, or an embedding model, ollama:NAME or openai:NAME."
        ),
    ] = "lexical"
    ollama_host: Annotated[str, about("Ollama's server; empty: OLLAMA_HOST, or this machine.")] = ""
    openai_base_url: Annotated[str, about("An OpenAI-compatible server; empty: OpenAI itself.")] = ""

    @property
    def any_model(self) -> bool:
        """Whether a language model is named for any role."""
        return any((self.models, self.planner, self.coder, self.judge, self.analyst))


class Settings(Section, frozen=True, kw_only=True):
    """A whole lab."""

    preset: Annotated[str, about("Where keys that are missing here come from.")]
    seed: Annotated[NonNegative, about("Seed of everything random in this lab.")] = 0
    device: Annotated[
        Literal["auto", "cpu", "cuda"], about("Where candidates train; auto takes a GPU if any.")
    ] = "auto"
    sandbox: Annotated[
        Literal["auto", "required", "bubblewrap", "landlock", "limits"],
        about("What confines trials: the best that works here; required refuses to run with limits alone."),
    ] = "auto"
    search: Search = Search()
    data: Data
    model: ModelSettings
    train: Train
    evaluate: Evaluate
    baselines: BaselineSettings = BaselineSettings()
    fitness: Fitness = Fitness()
    judge: Judge = Judge()
    verify: Verify = Verify()
    limits: Limits
    supervise: Supervise = Supervise()
    agents: AgentSettings = AgentSettings()

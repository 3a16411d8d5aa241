"""Presets, lab.toml and the messages about what is wrong in it."""

import pytest

from asi_lab.data.suites import SUITES
from asi_lab.errors import ConfigError
from asi_lab.lab import config


@pytest.mark.parametrize("name", config.preset_names())
def test_written_lab_toml_reads_back_the_same(name):
    settings = config.from_preset(name, seed=7)
    text = config.render(settings)
    assert config.parse(text) == settings
    uncommented = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert len(comments) > len(uncommented)  # every key has one, and every section


def test_presets_small_to_large():
    assert config.preset_names() == ["micro", "mini", "20m", "340m", "1.3b"]


def test_paper_presets_hold_the_papers_numbers():
    small, medium, large = (config.from_preset(name) for name in ("20m", "340m", "1.3b"))
    assert [(s.model.layers, s.model.width, s.model.heads) for s in (small, medium, large)] == [
        (8, 256, 8),
        (24, 1024, 8),
        (24, 2048, 16),
    ]
    assert [(s.train.steps, s.train.batch, s.train.warmup_steps) for s in (small, medium, large)] == [
        (2000, 256, 1000),
        (2000, 256, 1000),
        (50_000, 1024, 1000),
    ]
    for settings in (small, medium, large):
        assert settings.train.context == 2048
        assert settings.train.learning_rate == 3e-4
        assert settings.train.adam_eps == 1e-8
        assert settings.train.precision == "bf16"
        assert settings.data.tokenizer == "gpt2"
        assert settings.search.pool == 50
        assert settings.search.cold_start == 200
        assert settings.search.update_every == 50
        assert settings.search.parent_ranks == 10
        assert settings.search.references == 4
    assert [s.model.tie_embeddings for s in (small, medium, large)] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("preset='micro'\n[train]\nstepz=3\n", ["lab.toml:3", "'stepz'", "[train]", "steps, batch"]),
        ("preset='micro'\n[train]\nsteps=0\n", ["lab.toml:3", "train.steps", ">= 1", "found 0"]),
        ("preset='micro'\n\n[train]\nschedule='x'\n", ["lab.toml:4", "'wsd' | 'cosine'", "found 'x'"]),
        ("preset='huge'\n", ["lab.toml:1", "micro, mini, 20m, 340m, 1.3b", "'huge'"]),
        ("seed=3\n", ["preset", "found None"]),
        ("preset='micro'\n[model]\nheads=3\n", ["lab.toml:3", "model.heads", "divisor of model.width = 64"]),
        ("preset='micro'\nmodel=3\n", ["lab.toml:2", "model", "a table", "found 3"]),
        (
            "preset='micro'\n[search]\ncontrols=['best_of_n', 'best_of_one']\n",
            ["lab.toml:3", "search.controls", "list of 'best_of_n' | 'sequential'", "'best_of_one'"],
        ),
        (
            "preset='micro'\n[search]\ncontrols=['sequential', 'sequential']\n",
            ["lab.toml:3", "search.controls", "each once"],
        ),
        (
            "preset='micro'\n[search]\ncontrols=['best_of_n', 'sequential']\ncontrol_share=0.5\n",
            ["lab.toml:4", "search.control_share", "less than 1/2", "found 0.5"],
        ),
        (
            "preset='micro'\n[search]\ncontrols=['best_of_n']\ncontrol_share=0.0\n",
            ["lab.toml:4", "search.control_share", "more than 0", "found 0"],
        ),
        ("preset='micro'\n[colour]\na=1\n", ["lab.toml:2", "'colour'", "at the top level", "search"]),
        ("preset='micro'\n[supervise]\nprune=1\n", ["lab.toml:3", "true | false", "found 1"]),
        ("preset='micro'\n[evaluate]\ntasks=[]\n", ["lab.toml:3", "evaluate.tasks", "at least one"]),
        (
            "preset='micro'\n[evaluate]\nprobes=['probe_x']\n",
            ["lab.toml:3", "evaluate.probes", "probe_mqar, probe_reassigned", "found probe_x"],
        ),
        (
            "preset='micro'\n[evaluate]\nprobes=['probe_s3', 'probe_s3']\n",
            ["lab.toml:3", "evaluate.probes", "each once"],
        ),
        (
            "preset='micro'\n[evaluate]\ntasks=['suite:all']\n",
            ["lab.toml:3", "evaluate.tasks", "suite:exploration, suite:generalization", "found 'suite:all'"],
        ),
        (
            "preset='micro'\n[evaluate]\ntasks=['piqa', 'suite:generalization']\n",
            ["lab.toml:3", "evaluate.tasks", "enter no fitness", "verify.tasks; found race, bbq, metabench"],
        ),
        ("preset='micro'\n[evaluate]\ntasks=['metabench_arc']\n", ["evaluate.tasks", "found metabench_arc"]),
        (
            "preset='micro'\n[evaluate]\ntasks=['piqa', 'suite:exploration']\n",
            ["lab.toml:3", "evaluate.tasks", "each task once", "found piqa"],
        ),
        (
            "preset='micro'\n[evaluate]\ntasks=['suite:probes']\n",
            ["lab.toml:3", "evaluate.tasks", "probes in evaluate.probes", "probe_mqar"],
        ),
        (
            "preset='20m'\n[verify]\ntasks=['sciq', 'piqa']\n",
            ["lab.toml:3", "verify.tasks", "search chooses by", "found piqa in both"],
        ),
        ("preset='micro'\n[evaluate]\nmissing='skipp'\n", ["evaluate.missing", "'fail' | 'skip'"]),
        ("preset='micro'\n[data]\ntokenizer='bpe'\n", ["lab.toml:3", "byte, bpe:N or gpt2", "'bpe'"]),
        ("preset='micro'\n[data]\nsource='http:x'\n", ["lab.toml:3", "builtin, text:GLOB"]),
        ("preset=\n", ["lab.toml", "not valid TOML"]),
        ("preset='micro'\ntrain.steps = 'many'\n", ["lab.toml:2", "train.steps", "integer", "'many'"]),
    ],
)
def test_mistakes_name_file_key_line_and_accepted_values(text, words):
    with pytest.raises(ConfigError) as caught:
        config.parse(text)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "retired",
    ["[judge]\ntiming = false\n", "[judge]\ntiming = true\n", "[evaluate]\nprefix_tolerance = 1e-3\n"],
)
def test_keys_of_older_labs_that_say_nothing_any_more_are_passed_over(retired):
    plain = config.parse('preset = "micro"\n')
    assert config.parse(f'preset = "micro"\n{retired}') == plain
    with pytest.raises(ConfigError, match="'timing'"):
        config.parse('preset = "micro"\n[search]\ntiming = true\n')


def test_removed_keys_come_from_the_preset():
    settings = config.parse("preset = 'mini'\n[train]\nsteps = 9\nwarmup_steps = 2\n")
    assert settings.train.steps == 9
    assert settings.train.batch == config.from_preset("mini").train.batch


def test_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(ConfigError, match="init"):
        config.load(tmp_path / "lab.toml")


def test_suites_are_written_out_as_their_tasks():
    settings = config.parse(
        "preset='micro'\n[evaluate]\ntasks=['suite:offline']\nprobes=['suite:probes']\n"
        "[verify]\ntasks=['suite:generalization']\n"
    )
    assert settings.evaluate.tasks == SUITES["offline"]
    assert settings.evaluate.probes == SUITES["probes"]
    assert settings.verify.tasks == SUITES["generalization"]
    assert config.parse(config.render(settings)) == settings


def test_the_papers_presets_measure_its_benchmarks_as_it_did():
    """Appendix A.2: at most 500 samples in exploration, everything later; batches of 64, 4 and 8."""
    presets = [config.from_preset(name) for name in ("20m", "340m", "1.3b")]
    for settings in presets:
        assert settings.evaluate.tasks == SUITES["exploration"]
        assert settings.evaluate.max_length == 4096
        assert settings.train.precision == "bf16"
    assert [s.evaluate.batch for s in presets] == [64, 4, 8]
    assert [s.evaluate.limit for s in presets] == [500, 100_000, 100_000]
    assert [s.verify.tasks for s in presets] == [(), (), SUITES["generalization"]]

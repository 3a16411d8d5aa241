import ast
import subprocess
import sys

import pytest

from asi_lab.common.syntax import code_hash
from asi_lab.researcher.grammar import Genome, render, seed_genome


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample):
    path = tmp_path_factory.mktemp("rendered")
    for index, genome in enumerate(sample):
        (path / f"sample_{index}.py").write_text(render(genome, f"delta_net_{index}"))
    return path


def ruff(folder, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", str(folder)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("width", ["88", "110"])
def test_rendered_source_is_formatted(folder, width):
    ruff(folder, "format", "--check", "--isolated", "--line-length", width)


def test_rendered_source_is_lint_clean(folder):
    ruff(folder, "check", "--isolated", "--select", "E,F,W,I,N,UP,B,C4,SIM,RET,PTH", "--line-length", "88")


@pytest.mark.slow
def test_distinct_genomes_differ_in_code_and_not_only_in_words(genomes):
    found = genomes(400, 2)
    assert len({code_hash(render(genome, "delta_net_x")) for genome in found}) == len(found)


def test_only_mechanisms_in_use_are_rendered():
    source = render(seed_genome(), "delta_net")
    for word in ("router", "fir", "decay", "gate(", "aux", "residual", "math", "linear_attention"):
        assert word not in source.lower().replace("linear attention", "")
    bare = render(Genome(qk_conv=0, v_conv=0), "delta_net_bare")
    assert "short_convolution" not in bare


def test_imports_are_the_allowed_ones(genomes):
    for genome in genomes(100, 3):
        tree = ast.parse(render(genome, "delta_net_x"))
        modules = {
            name
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert modules <= {"math", "typing", "torch", "asi_lab.kernels"}


def test_an_invalid_genome_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="router needs at least two paths"):
        render(Genome(router="softmax"), "delta_net_x")

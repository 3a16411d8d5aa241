from statistics import fmean

import pytest

from asi_lab.data import suites

TABLE_1 = {
    "lambada_openai": 45.47,
    "piqa": 73.12,
    "hellaswag": 56.29,
    "winogrande": 55.88,
    "arc_easy": 73.40,
    "arc_challenge": 40.61,
    "social_iqa": 40.74,
    "boolq": 60.58,
    "race": 34.45,
    "bbq": 29.53,
    "metabench": 26.97,
    "qa4mre_2011": 40.00,
    "sciq": 89.80,
    "swag": 47.69,
}
"""DeltaNet at 1.3B parameters, in per cent (paper, table 1)."""


def test_the_blocks_are_those_of_which_the_paper_gives_averages():
    """Its text has social_iqa and swag the other way round; then neither average would come out."""
    old, new = suites.BLOCKS["exploration"], suites.BLOCKS["generalization"]
    assert {*old, *new} == set(TABLE_1)
    assert fmean(TABLE_1[name] for name in old) == pytest.approx(55.76, abs=0.006)
    assert fmean(TABLE_1[name] for name in new) == pytest.approx(44.74, abs=0.006)
    swapped = ({*old} - {"social_iqa"}) | {"swag"}
    assert fmean(TABLE_1[name] for name in swapped) != pytest.approx(55.76, abs=0.1)


def test_the_upper_block_has_ten_figures():
    assert sum(len(suites.figures(name)) for name in suites.SUITES["exploration"]) == 10
    assert [n for n in TABLE_1 if suites.figures(n) == ("acc_norm",)] == ["hellaswag", "arc_challenge"]
    assert suites.figures("openbookqa") == ()


def test_suites_stand_for_their_tasks():
    names = suites.expanded(["asi_copy", "suite:generalization", "./mine"])
    assert names == ("asi_copy", "race", "bbq", "metabench", "qa4mre_2011", "sciq", "swag", "./mine")
    with pytest.raises(ValueError, match=r"suite:exploration, .*suite:probes; found 'suite:all'"):
        suites.expanded(["suite:all"])


def test_what_is_kept_for_claims_is_known_by_its_parts_too():
    names = ["piqa", "race", "metabench_arc", "qa4mre", "qa4mre_2012", "social_bias", "racer", "asi_recall"]
    assert suites.kept_for_claims(names) == ["race", "metabench_arc", "qa4mre", "qa4mre_2012", "social_bias"]
    assert suites.of_lm_eval(["asi_copy", "piqa", "./mine", "race"]) == ["piqa", "race"]

"""A few items in the format of each data set of the paper's benchmarks, as we wrote them, with the number of
the right choice of each, and a stand-in for `datasets.load_dataset` that gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.tasks import TaskManager

FOLDERS = (
    *("wikitext", "lambada", "piqa", "hellaswag", "winogrande", "arc", "siqa", "super_glue/boolq", "race"),
    *("bbq", "metabench", "qa4mre", "sciq", "swag"),
)
"""Where lm-eval has the tasks."""

QUESTION = {"label": ["A", "B", "C"], "text": ["the sun", "a stone", "a cat"]}
SHOTS = {"ARC": 25, "GSM8K": 5, "HellaSwag": 10, "MMLU": 5, "Winogrande": 5}


def _story(label: str, activity: str = "Baking") -> dict[str, Any]:
    return {
        "activity_label": activity,
        "ctx_a": "A man takes flour [title] from the shelf.",
        "ctx_b": "he",
        "ctx": "A man takes flour from the shelf. he",
        "endings": ["flies off.", "bakes bread.", "sings.", "sells the house."],
        "label": label,
    }


def _bbq(label: int, condition: str, polarity: str) -> dict[str, Any]:
    return {
        "example_id": label,
        "question_polarity": polarity,
        "context_condition": condition,
        "category": "Age",
        "answer_info": {
            "ans0": ["grandfather", "old"],
            "ans1": ["grandson", "nonOld"],
            "ans2": ["unknown", "unknown"],
        },
        "additional_metadata": {"stereotyped_groups": ["old"]},
        "context": f"At {label} I saw a grandfather and his grandson.",
        "question": "Who could not book a ride?",
        "ans0": "The grandfather",
        "ans1": "The grandson",
        "ans2": "Not known",
        "label": label,
    }


def _shots(kind: str, **of_each: Any) -> dict[str, Any]:
    count = SHOTS[kind]
    prefix = kind.lower()
    return {f"{prefix}_{key}_shot_{n}": of_each[key] for n in range(1, count + 1) for key in of_each}


_ARC = {"question": "What is warm?", "choices": QUESTION, "answerKey": "A"}
_WINOGRANDE = {"sentence": "The cup broke because _ fell.", "option1": "it", "option2": "she", "answer": "1"}

ITEMS: dict[str, tuple[list[dict[str, Any]], list[int]]] = {
    "EleutherAI/wikitext_document_level": ([{"page": " = Bread = \n Bread is old , says he . \n"}], []),
    "EleutherAI/lambada_openai": ([{"text": "He baked bread and sold bread"}], [0]),
    "baber/piqa": (
        [
            {"goal": "Cut bread", "sol1": "Use a knife.", "sol2": "Use a spoon.", "label": 0},
            {"goal": "Boil water", "sol1": "Use ice.", "sol2": "Use a pot.", "label": 1},
        ],
        [0, 1],
    ),
    "Rowan/hellaswag": ([_story("1"), _story("3", "Cooking")], [1, 3]),
    "allenai/winogrande": (
        [_WINOGRANDE, _WINOGRANDE | {"sentence": "Pat ate as _ was ill.", "answer": "2"}],
        [0, 1],
    ),
    "allenai/ai2_arc": ([_ARC, _ARC | {"question": "What purrs?", "answerKey": "C"}], [0, 2]),
    "lighteval/siqa": (
        [
            {
                "context": "Ann gave Bo bread.",
                "question": "How does Bo feel?",
                "answerA": "sad",
                "answerB": "full",
                "answerC": "lost",
                "label": "2",
            }
        ],
        [1],
    ),
    "aps/super_glue": ([{"passage": "Bread is baked.", "question": "is bread baked", "label": 1}], [1]),
    "EleutherAI/race": (
        [
            {
                "article": "Bread is old.",
                "problems": str(
                    [
                        {"question": "Is it new?", "answer": "B", "options": ["yes", "no", "so", "all"]},
                        {"question": "It is  _  .", "answer": "D", "options": ["new", "red", "far", "old"]},
                    ]
                ),
            }
        ],
        [3],
    ),
    "oskarvanderwal/bbq": ([_bbq(0, "disambig", "neg"), _bbq(1, "disambig", "nonneg")], [0, 1]),
    "community-datasets/qa4mre": (
        [
            {
                "document_str": "Bread is old. ",
                "question_str": "What is old?",
                "correct_answer_id": "2",
                "answer_options": {"answer_id": ["1", "2", "3"], "answer_str": ["milk", "bread", "none"]},
            }
        ],
        [1],
    ),
    "allenai/sciq": (
        [
            {
                "support": " Bread has yeast.",
                "question": "What is in bread?",
                "distractor1": "iron",
                "distractor2": "wood",
                "distractor3": "glass",
                "correct_answer": "yeast",
            }
        ],
        [3],
    ),
    "allenai/swag": (
        [
            {
                "startphrase": "He takes bread and",
                **{f"ending{n}": text for n, text in enumerate(["eats.", "flies.", "melts.", "rains."])},
                "label": 0,
            }
        ],
        [0],
    ),
    "HCAI/metabench ARC": (
        [_ARC | _shots("ARC", question="?", choices=QUESTION, answerKey="B", idx=1)
         | {"alltwentyfiveshot_longprompt": ""}],
        [0],
    ),
    "HCAI/metabench GSM8K": (
        [{"question": "1+1?", "answer": "#### 2"} | _shots("GSM8K", prompt="2+2?", answer="#### 4", idx=1)
         | {"allfiveshot_longprompt": ""}],
        [],
    ),
    "HCAI/metabench HellaSwag": (
        [_story("1") | _shots(
            "HellaSwag", ctx="A b", ctx_a="A", ctx_b="b", activity_labels="X", endings=["c", "d"], label="1",
            ind=1, source_id="s", split="val", split_type="in",
        ) | {"alltenshot_longprompt": ""}],
        [1],
    ),
    "HCAI/metabench MMLU": (
        [{"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "high_school"}
         | _shots("MMLU", question="Q", choices=["a", "b", "c", "d"], answers=1, ind=1)
         | {"allfiveshot_longprompt": ""}],
        [2],
    ),
    "HCAI/metabench TruthfulQA": (
        [{"question": "Is bread new?", "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]}}],
        [0],
    ),
    "HCAI/metabench Winogrande": (
        [_WINOGRANDE | _shots("Winogrande", prompt="A _ b", option1="x", option2="y", answer="1", idx=1)
         | {"allfiveshot_longprompt": ""}],
        [0],
    ),
}  # fmt: skip
"""By name on the hub, for metabench with its configuration."""


def key_of(path: str, name: str | None) -> str:
    """The key of `ITEMS` of a data set."""
    return f"{path} {name}" if path == "HCAI/metabench" else path


def load_dataset(path: str, name: str | None = None, **_: Any) -> datasets.DatasetDict:
    """As `datasets.load_dataset`, for any split."""
    rows, _ = ITEMS[key_of(path, name)]
    splits = ("train", "validation", "test", "primary")
    return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split in splits})


def narrow(include_defaults: bool = True) -> TaskManager:
    """lm-eval's own manager of tasks, which looks into these folders alone: all of them take ten seconds."""
    place = Path(lm_eval.__file__).parent / "tasks"
    folders = [str(place / folder) for folder in FOLDERS] if include_defaults else None
    return TaskManager(include_path=folders, include_defaults=False)

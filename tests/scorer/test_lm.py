from collections.abc import Callable

import pytest
import torch
from lm_eval.api.instance import Instance

from asi_lab.data.tokenizer import train_tokenizer
from asi_lab.errors import DataError
from asi_lab.scorer.lm import HarnessRequest, RemoteLM

PAIRS = [
    ("The quick brown", " fox"),
    ("The quick brown", " dog jumps"),
    ("", "Hello"),
    ("a", "b"),
    ("Ends with spaces  ", "here"),
    ("   ", "only spaces before"),
    ("Grüße aus", " Köln"),
    ("The quick brown fox", "x"),
    ("The quick brown fox", "y"),
]


def requests(kind: str, *arguments: tuple) -> list[Instance]:
    return [Instance(kind, {}, args, i, ("task", 7, 1)) for i, args in enumerate(arguments)]


def direct(model, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Log probability and greediness by one plain forward pass."""
    ids = torch.tensor([context + continuation])
    with torch.no_grad():
        log_probs = torch.log_softmax(model.head(model(ids[:, :-1]))[0].double(), -1)
    tail = log_probs[len(context) - 1 :]
    targets = torch.tensor(continuation)
    chosen = tail.gather(1, targets[:, None]).sum().item()
    return chosen, bool((tail.argmax(1) == targets).all())


def split(tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    stripped = context.rstrip()
    return (
        tokenizer.encode(stripped) or [tokenizer.eot],
        tokenizer.encode(context[len(stripped) :] + continuation),
    )


def test_loglikelihood_is_that_of_a_plain_forward_pass(lm: RemoteLM, model, tokenizer) -> None:
    found = lm.loglikelihood(requests("loglikelihood", *PAIRS))
    for (log_prob, greedy), pair in zip(found, PAIRS, strict=True):
        expected, expected_greedy = direct(model, *split(tokenizer, *pair))
        assert log_prob == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy


def test_greedy_is_true_exactly_where_decoding_gives_the_continuation(lm: RemoteLM, model, tokenizer) -> None:
    ids = tokenizer.encode("The quick")
    for _ in range(3):
        with torch.no_grad():
            ids.append(model.head(model(torch.tensor([ids])))[0, -1, :256].argmax().item())
    context, best = ids[:-3], ids[-3:]
    wrong = [*best[:2], (best[2] + 1) % 256]
    with torch.no_grad():
        logits = model.head(model(torch.tensor([ids])))[0]
    assert logits[len(context) - 1 : -1].argmax(1).tolist() == best
    scored = lm._score([(context, best), (context, wrong)], [HarnessRequest("task", 0, i) for i in range(2)])
    assert [greedy for _, greedy in scored] == [True, False]


def test_order_and_batching_do_not_matter(make_lm: Callable[..., RemoteLM], model) -> None:
    one = make_lm(model, model.head.weight, batch=1).loglikelihood(requests("loglikelihood", *PAIRS))
    many = make_lm(model, model.head.weight, batch=8).loglikelihood(requests("loglikelihood", *PAIRS))
    back = make_lm(model, model.head.weight).loglikelihood(requests("loglikelihood", *PAIRS[::-1]))
    assert [p for p, _ in one] == pytest.approx([p for p, _ in many], abs=1e-5)
    assert [p for p, _ in one] == pytest.approx([p for p, _ in back[::-1]], abs=1e-5)


def test_long_contexts_are_cut_on_the_left(make_lm: Callable[..., RemoteLM], model, tokenizer) -> None:
    lm = make_lm(model, model.head.weight, max_length=10)
    context, continuation = "0123456789abcdefghij", "XYZ"
    ((found, _),) = lm.loglikelihood(requests("loglikelihood", (context, continuation)))
    kept = tokenizer.encode(context + continuation)[-11:]
    assert found == pytest.approx(direct(model, kept[:-3], kept[-3:])[0], abs=1e-4)
    assert found != pytest.approx(direct(model, *split(tokenizer, context, continuation))[0], abs=1e-3)


def test_no_row_is_longer_than_allowed_nor_sent_twice(make_lm: Callable[..., RemoteLM], model) -> None:
    seen: list[list[int]] = []

    def hidden(ids: torch.Tensor) -> torch.Tensor:
        seen.extend(ids.tolist())
        return model(ids)

    lm = make_lm(hidden, model.head.weight, max_length=12, batch=4)
    lm.loglikelihood(requests("loglikelihood", *[("x" * 30, letter) for letter in "abcdefgh"]))
    assert [len(row) for row in seen] == [12]


def test_rolling_scores_every_token_once(make_lm: Callable[..., RemoteLM], model, tokenizer) -> None:
    texts = ["short", "a text that is longer than the model takes at once", "", "x" * 20]
    lm = make_lm(model, model.head.weight, max_length=10)
    found = lm.loglikelihood_rolling(requests("loglikelihood_rolling", *[(text,) for text in texts]))
    for log_prob, text in zip(found, texts, strict=True):
        tokens = [tokenizer.eot, *tokenizer.encode(text)]
        expected = 0.0
        for at in range(1, len(tokens), 10):
            end = min(at + 10, len(tokens))
            start = max(0, end - 11)
            expected += direct(model, tokens[start:at], tokens[at:end])[0]
        assert log_prob == pytest.approx(expected, abs=1e-3)


def test_rolling_uses_the_windows_of_lm_eval(make_lm: Callable[..., RemoteLM], model, tokenizer) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    text = "a text that is longer than the model takes at once"
    windows = get_rolling_token_windows(tokenizer.encode(text), tokenizer.eot, 16, 1)
    expected = sum(direct(model, *make_disjoint_window(window))[0] for window in windows)
    lm = make_lm(model, model.head.weight, max_length=16)
    (found,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_continuation_longer_than_the_model_is_scored_whole(
    make_lm: Callable[..., RemoteLM], model, tokenizer
) -> None:
    lm = make_lm(model, model.head.weight, max_length=10)
    ((found, _),) = lm.loglikelihood(requests("loglikelihood", ("", "y" * 25)))
    (rolling,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", ("y" * 25,)))
    assert found == pytest.approx(rolling, abs=1e-5)


def test_context_and_continuation_meet_at_a_token_boundary(make_lm: Callable[..., RemoteLM], model) -> None:
    words = train_tokenizer("bpe:300", iter(["the cat sat on the mat, the cat ate the rat " * 20]))
    lm = make_lm(model, model.head.weight)
    lm._tokenizer = words
    context, continuation = lm._encode_pair("the cat ", "sat")
    assert words.decode(context) == "the cat"
    assert words.decode(continuation) == " sat"
    assert len(words.encode("the")) == 1
    context, continuation = lm._encode_pair("th", "e cat")  # "the" is one token when encoded together
    assert (words.decode(context), words.decode(continuation)) == ("th", "e cat")
    assert lm._encode_pair("", "cat") == ([words.eot], words.encode("cat"))
    assert lm._encode_pair("cat", "") == (words.encode("cat"), [])


def test_it_keeps_what_each_token_of_a_result_was_given_after_which_prefix(
    make_lm: Callable[..., RemoteLM], model, tokenizer
) -> None:
    lm = make_lm(model, model.head.weight, max_length=10)
    found = lm.loglikelihood(requests("loglikelihood", ("The quick", " fox jumps over"), ("The quick", "x")))
    for number, (log_prob, _) in enumerate(found):
        pieces = [piece for piece in lm.scored if piece.request == HarnessRequest("task", 7, number)]
        assert sum(piece.log_probs.sum() for piece in pieces) == pytest.approx(log_prob)
        for piece in pieces:
            for at, token in enumerate(piece.tokens):
                alone, _ = direct(model, list(piece.prefix(at)), [token])
                assert piece.log_probs[at] == pytest.approx(alone, abs=1e-4)


def test_an_empty_continuation_is_certain(lm: RemoteLM) -> None:
    assert lm.loglikelihood(requests("loglikelihood", ("text", ""))) == [(0.0, True)]


def greedy(model, tokenizer, prompt: str, count: int) -> list[int]:
    ids = tokenizer.encode(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(model.head(model(torch.tensor([ids])))[0, -1].argmax().item())
    return ids[len(tokenizer.encode(prompt)) :]


def test_generation_is_greedy_and_stops(lm: RemoteLM, model, tokenizer) -> None:
    prompts = ["Once upon", "In the beginning was", "x"]
    expected = [tokenizer.decode(greedy(model, tokenizer, prompt, 6)) for prompt in prompts]
    settings = {"until": [], "max_gen_toks": 6, "do_sample": False, "temperature": 0.0}
    assert lm.generate_until(requests("generate_until", *[(p, settings) for p in prompts])) == expected
    stop = expected[0][2]
    found = lm.generate_until(requests("generate_until", (prompts[0], settings | {"until": stop})))
    assert found == [expected[0][: expected[0].index(stop)]]
    assert lm.generate_until(requests("generate_until", ("x", settings | {"max_gen_toks": 0}))) == [""]


def test_generation_ends_with_the_text(make_lm: Callable[..., RemoteLM], tokenizer) -> None:
    """A model that counts up from its last token, and then ends."""
    head = 10 * torch.eye(tokenizer.vocab_size)

    def hidden(ids: torch.Tensor) -> torch.Tensor:
        following = torch.where(ids >= ord("f"), tokenizer.eot, ids + 1)
        return torch.nn.functional.one_hot(following, tokenizer.vocab_size).float()

    lm = make_lm(hidden, head)
    assert lm.generate_until(requests("generate_until", ("b", {"until": ["\n"]}))) == ["cdef"]


def test_sampling_is_refused(lm: RemoteLM) -> None:
    with pytest.raises(DataError, match="do_sample"):
        lm.generate_until(requests("generate_until", ("x", {"do_sample": True, "until": []})))

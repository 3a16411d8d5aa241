"""lm-eval's language model interface over a model in another process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from torch import Tensor

from asi_lab.errors import DataError
from asi_lab.scorer.client import Remote
from asi_lab.scorer.output import Output
from asi_lab.scorer.tasks.passages import EncodesText

Pair = tuple[list[int], list[int]]
"""Tokens of a context, at least one, and of its continuation."""

LogProb = tuple[float, bool]
"""Log probability of a continuation, and whether greedy decoding would give it."""

GENERATED_TOKENS = 256
"""Tokens generated where a task sets no `max_gen_toks`; the default of lm-eval."""


class HarnessRequest(NamedTuple):
    """What a continuation belongs to: lm-eval's task, document and number of the choice."""

    task: str
    document: int
    choice: int


class ScoredPiece(NamedTuple):
    """Consecutive tokens of a continuation: its request, the row they were scored in, which they end but for
    the last token, and the log probabilities [N] they were given (nats)."""

    request: HarnessRequest
    row: tuple[int, ...]
    tokens: list[int]
    log_probs: np.ndarray[Any, Any]

    def prefix(self, number: int) -> tuple[int, ...]:
        """What stands before token `number` of the piece."""
        return self.row[: len(self.row) - len(self.tokens) + 1 + number]


class RemoteLM(LM):  # type: ignore[misc]
    """Scores text with the residual stream of a remote model, its output and a tokenizer.

    Contexts are cut on the left so that at most `max_length` tokens reach the model. Rows go out
    sorted by length, up to `batch` rows or `batch_tokens` tokens (padding included) at once, and rows
    that would be equal, such as one context before several choices of one token, only once. `scored` keeps
    everything whose log probability entered a result.
    """

    def __init__(
        self,
        model: Remote,
        output: Output,
        tokenizer: EncodesText,
        *,
        max_length: int,
        batch: int,
        batch_tokens: int,
    ) -> None:
        super().__init__()
        self._model, self._output = model, output
        self._tokenizer = tokenizer
        self.scored: list[ScoredPiece] = []
        self._max_length = max_length
        self._batch = batch
        self._batch_tokens = batch_tokens

    @property
    def eot_token_id(self) -> int:
        """The token between documents; it stands before a text without context."""
        return self._tokenizer.eot

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._tokenizer.vocab_size

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text; no special token is ever added."""
        return self._tokenizer.encode(string)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[LogProb]:
        """Log probability of each continuation after its context, and whether greedy decoding gives it."""
        pairs = [self._encode_pair(*request.args) for request in requests]
        return self._score(pairs, list(map(_request, requests)))

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log probability of each whole text, every token with as much context as fits."""
        pairs = [([self.eot_token_id], self.tok_encode(request.args[0])) for request in requests]
        return [log_prob for log_prob, _ in self._score(pairs, list(map(_request, requests)))]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuation of each context up to a stop string, the end of text or `max_gen_toks`.

        Raises:
            DataError: the task wants random samples.
        """
        texts: list[str] = []
        size = max(1, min(self._batch, self._batch_tokens // self._max_length))
        for at in range(0, len(requests), size):
            texts += self._generate([request.args for request in requests[at : at + size]])
        return texts

    def _encode_pair(self, context: str, continuation: str) -> Pair:
        """Tokens of context and continuation, encoded together where the boundary is one of tokens.

        Spaces at the end of the context belong to the continuation, as in lm-eval. Where the
        tokenizer would merge across the boundary, both are encoded on their own.
        """
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        before = self.tok_encode(stripped) if stripped else []
        whole = self.tok_encode(stripped + continuation)
        clean = whole[: len(before)] == before
        after = whole[len(before) :] if clean else self.tok_encode(continuation)
        return before or [self.eot_token_id], after

    def _score(self, pairs: Sequence[Pair], requests: Sequence[HarnessRequest]) -> list[LogProb]:
        """Log probability and greediness of each continuation.

        A continuation longer than the model takes is scored in pieces, each after all that fits of
        what stands before it.
        """
        rows: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for number, (context, continuation) in enumerate(pairs):
            for at in range(0, len(continuation), self._max_length):
                piece = continuation[at : at + self._max_length]
                row = (context + continuation[:at] + piece)[-self._max_length - 1 : -1]
                rows.setdefault(tuple(row), []).append((number, piece))
        total = [0.0] * len(pairs)
        greedy = [True] * len(pairs)
        for batch in self._batches(sorted(rows, key=lambda row: (-len(row), row))):
            pieces = [rows[row] for row in batch]
            for number, of_row, piece, log_probs, hits in self._score_batch(batch, pieces):
                total[number] += float(log_probs.sum())
                greedy[number] &= bool(hits.all())
                self.scored.append(ScoredPiece(requests[number], of_row, piece, log_probs))
        return list(zip(total, greedy, strict=True))

    def _score_batch(
        self, rows: Sequence[tuple[int, ...]], pieces: Sequence[list[tuple[int, list[int]]]]
    ) -> Iterator[tuple[int, tuple[int, ...], list[int], np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """For every piece of a batch of rows: number of the pair, row, piece, log probabilities and greedy
        hits of its tokens."""
        lengths = np.array([len(row) for row in rows])
        wanted = np.array([max(len(targets) for _, targets in row) for row in pieces])
        states = self._model.residual(self._pad(rows), lengths, lengths - wanted)
        ends = wanted.cumsum()
        jobs = [
            (int(end), row, *piece)
            for end, row, of_row in zip(ends, rows, pieces, strict=True)
            for piece in of_row
        ]
        index = np.concatenate([np.arange(end - len(targets), end) for end, _, _, targets in jobs])
        targets = np.concatenate([targets for *_, targets in jobs])
        log_probs, hits = self._target_log_probs(states, index, targets)
        at = 0
        for _, row, number, piece in jobs:
            here = slice(at, at + len(piece))
            yield number, row, piece, log_probs[here], hits[here]
            at += len(piece)

    def _target_log_probs(
        self, states: Tensor, index: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        device = states.device
        chosen = states[torch.from_numpy(index).to(device)]
        log_probs, hits = self._output.log_probs(chosen, torch.from_numpy(targets).to(device))
        return log_probs.double().cpu().numpy(), hits.cpu().numpy()

    def _batches(self, rows: Sequence[tuple[int, ...]]) -> Iterator[Sequence[tuple[int, ...]]]:
        """Split rows, the longest first, into batches."""
        at = 0
        while at < len(rows):
            size = max(1, min(self._batch, self._batch_tokens // len(rows[at])))
            yield rows[at : at + size]
            at += size

    def _pad(self, rows: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
        ids = np.full((len(rows), max(map(len, rows))), self.eot_token_id, np.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row
        return ids

    def _generate(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        prompts = [self.tok_encode(context) or [self.eot_token_id] for context, _ in requests]
        settings = [settings for _, settings in requests]
        if any(s.get("do_sample") for s in settings):
            raise DataError(
                "expected a task with greedy generation, found `do_sample: true`; "
                "set it to false in the task's YAML, since random samples make scores irreproducible"
            )
        limits = [int(s.get("max_gen_toks", GENERATED_TOKENS)) for s in settings]
        stops = [_stops(s.get("until")) for s in settings]
        generated: list[list[int]] = [[] for _ in requests]
        running = [i for i, limit in enumerate(limits) if limit > 0]
        while running:
            rows = [(prompts[i] + generated[i])[-self._max_length :] for i in running]
            lengths = np.array([len(row) for row in rows])
            states = self._model.residual(self._pad(rows), lengths, lengths - 1)
            for i, token in zip(running, self._output.logits(states).argmax(1).tolist(), strict=True):
                generated[i].append(token)
            running = [i for i in running if not self._ended(generated[i], limits[i], stops[i])]
        return [self._cut(tokens, until) for tokens, until in zip(generated, stops, strict=True)]

    def _ended(self, tokens: list[int], limit: int, stops: list[str]) -> bool:
        if tokens[-1] == self.eot_token_id or len(tokens) >= limit:
            return True
        text = self._tokenizer.decode(tokens)
        return any(stop in text for stop in stops)

    def _cut(self, tokens: list[int], stops: list[str]) -> str:
        if tokens and tokens[-1] == self.eot_token_id:
            tokens = tokens[:-1]
        text = self._tokenizer.decode(tokens)
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


def _stops(until: str | Sequence[str] | None) -> list[str]:
    return [stop for stop in ([until] if isinstance(until, str) else until or []) if stop]


def _request(instance: Instance) -> HarnessRequest:
    return HarnessRequest(instance.task_name, instance.doc_id, instance.idx)

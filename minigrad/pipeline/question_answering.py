"""Answers found in a text: the span of the context that the model believes most.

A context longer than the model reads is read in windows that overlap, so that every short span stands whole in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data import Encoding
from minigrad.errors import ArgumentError
from minigrad.files import quoted
from minigrad.packing import PackedTokens
from minigrad.pipeline.base import Pipeline, Rows, as_list, check_count, softmax

WINDOW = 384
"""Tokens of a window unless max_length says otherwise: what published models were trained on."""


class QuestionAnswering(Pipeline):
    """A question and a context to the answer in it."""

    head = "question-answering"

    def run(self, question: Any, context: Any, *, top_k: int = 1, max_answer_len: int = 15, stride: int = 128) -> Any:
        """{"score", "start", "end", "answer"} for each question, or with top_k > 1 a list of them; of one question its result alone.

        question, context: a text or a list of texts each; one context may serve many questions. start and end are characters of the
        context, answer what stands there: whole words, of at most max_answer_len tokens. score is the probability of the start times that
        of the end within the window (which may also say that it holds no answer, by its first token); a span that two windows hold
        counts once, with its better score. stride: the tokens that neighbouring windows share.
        Raises: ArgumentError for a context without tokens, or a question that leaves it no room.
        """
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            check_count(name, value)
        questions, single = as_list(question)
        contexts = as_list(context)[0]
        if isinstance(context, str):
            contexts *= len(questions)
        encodings = self.tokenizer.encode(questions, pairs=contexts)
        windows, owners = [], []
        for i, encoding in enumerate(encodings):
            for window in self._windows(i, encoding, stride):
                windows.append(window)
                owners.append(i)
        answers: list[dict[tuple[int, int], float]] = [{} for _ in encodings]
        for i, window, (starts, ends) in zip(owners, windows, self._compute(windows, self._logits), strict=True):
            for span, score in _candidates(window, encodings[i], starts, ends, max_answer_len, top_k):
                answers[i][span] = max(score, answers[i].get(span, 0.0))
        results = []
        for text, spans in zip(contexts, answers, strict=True):
            best = sorted(spans.items(), key=lambda item: -item[1])[:top_k]
            found = [{"score": score, "start": start, "end": end, "answer": text[start:end]} for (start, end), score in best]
            results.append(found[0] if top_k == 1 else found)
        return results[0] if single else results

    def _logits(self, tokens: PackedTokens) -> list[tuple[Rows, Rows]]:
        output = self.model(tokens)
        starts, ends = output.start_logits.numpy(), output.end_logits.numpy()
        return [(starts[first:last], ends[first:last]) for first, last in tokens.packing.spans]

    def _windows(self, number: int, encoding: Encoding, stride: int) -> Iterator[Encoding]:
        """The question with as much of the context as fits, until the whole context was there."""
        size = min(self._longest(), self.max_length or WINDOW)
        own = np.flatnonzero(encoding.sequence_ids == 1)
        if not len(own):
            raise ArgumentError(f"context {number} has no tokens")
        first, last = int(own[0]), int(own[-1]) + 1
        room = size - (len(encoding) - len(own))
        if room < 1:
            raise ArgumentError(
                f"question {number} leaves no room for its context: {len(encoding) - len(own)} tokens of {size}", code="too-long"
            )
        if type(stride) is not int or stride < 0 or (len(own) > room and stride >= room):
            raise ArgumentError(
                f"stride must lie between 0 and {room - 1}, as question {number} leaves {room} tokens; got {quoted(stride)}"
            )
        for start in range(first, last, max(room - stride, 1)):
            stop = min(start + room, last)
            yield _taken(encoding, np.r_[0:first, start:stop, last : len(encoding)])
            if stop == last:
                return


def _taken(encoding: Encoding, tokens: NDArray[np.int64]) -> Encoding:
    names = ("ids", "type_ids", "offsets", "word_ids", "sequence_ids")
    return replace(encoding, **{name: getattr(encoding, name)[tokens] for name in names})


def _candidates(
    window: Encoding, whole: Encoding, starts: Rows, ends: Rows, longest: int, count: int
) -> Iterator[tuple[tuple[int, int], float]]:
    """The best spans of whole words in a window, `count` different ones, with their scores.

    Shapes: starts, ends (n,) logits.
    """
    own = np.flatnonzero(window.sequence_ids == 1)
    seen = np.r_[0, own]  # the first token is where the model says that there is no answer
    start_scores, end_scores = (softmax(logits[seen].astype(np.float64))[1:] for logits in (starts, ends))
    first = np.repeat(np.arange(len(own)), longest)
    last = first + np.tile(np.arange(longest), len(own))
    first, last = first[last < len(own)], last[last < len(own)]
    scores = start_scores[first] * end_scores[last]
    found: set[tuple[int, int]] = set()
    for i in np.argsort(-scores, kind="stable").tolist():
        span = _place(whole, window.word_ids[own[first[i]]])[0], _place(whole, window.word_ids[own[last[i]]])[1]
        if span not in found:
            found.add(span)
            yield span, float(scores[i])
        if len(found) == count:
            return


def _place(whole: Encoding, word: int) -> tuple[int, int]:
    """First and past-the-end character of a word of the context."""
    places = whole.offsets[(whole.word_ids == word) & (whole.sequence_ids == 1)]
    return int(places[0, 0]), int(places[-1, 1])

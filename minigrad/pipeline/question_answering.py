"""Extractive question answering: the most probable span of a context.

A context longer than the model reads is read in overlapping windows, so that every short span lies whole in one of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad import functional as F
from minigrad.data import Encoding
from minigrad.data.checks import check_count
from minigrad.data.progress import progress_bar
from minigrad.data.tokenization import checked_texts
from minigrad.data.windows import window, windows
from minigrad.errors import ArgumentError, InputError
from minigrad.packing import PackedTokens
from minigrad.pipeline.base import Chunk, Pipeline, Rows, as_list, softmax, split_rows
from minigrad.tensor import Tensor

WINDOW = 384
"""Default tokens of a window: what published models were trained on."""


class QuestionAnswering(Pipeline):
    """Finds the answer to a question in a context."""

    head = "question-answering"

    def run(
        self,
        question: Any,
        context: Any,
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        stride: int | None = None,
        handle_impossible_answer: bool = False,
    ) -> Any:
        """{"score", "start", "end", "answer"} for each question, with top_k > 1 a list of them; for a single question just its result.

        question, context: a text or a list of texts each; one context may serve many questions. start and end are characters of the
        context, answer is the text between them: whole words, of at most max_answer_len tokens. score is the probability of the start times
        that of the end within the window (whose first token stands for no answer); a span found in two windows counts once, with its better
        score. stride: the tokens that neighbouring windows share (None: 128, or half of a small window). handle_impossible_answer: also
        allow "" from 0 to 0 as an answer, with the lowest no-answer score of all windows.
        Raises: InputError for a context without tokens, or a question that leaves it no room.
        """
        count, longest = check_count("top_k", top_k), check_count("max_answer_len", max_answer_len)
        questions, single = as_list(question)
        contexts = as_list(context)[0]
        if isinstance(context, str):
            contexts *= len(questions)
        if len(questions) != len(contexts):
            raise ArgumentError(f"question and context must have equal lengths, got {len(questions)} and {len(contexts)}")
        for name, texts in (("question", questions), ("context", contexts)):
            checked_texts(name, texts)
        encodings = self.tokenizer.encode(questions, pairs=contexts)
        size = min(self._longest(), self.max_length or WINDOW)
        shown, owners = [], []
        for i, encoding in enumerate(encodings):
            if not np.any(encoding.sequence_ids == 1):
                raise InputError("context", i, "has no tokens")
            parts = windows(encoding, 1, size, stride, "question", i)
            placed = replace(encoding, offsets=_word_offsets(encoding))
            shown += [window(placed, part, (parts[0][0], parts[-1][1])) for part in parts]
            owners += [i] * len(parts)
        best: list[dict[tuple[int, int], float]] = [{} for _ in encodings]
        none = [1.0] * len(encodings)
        with progress_bar(len(questions), self.progress) as bar:
            logits = self._compute(Chunk(questions, bar), shown, lambda _, tokens: self._logits(tokens))
        for i, part, (starts, ends) in zip(owners, shown, logits, strict=True):
            spans, impossible = _candidates(part, starts, ends, longest, count)
            none[i] = min(none[i], impossible)
            for span, score in spans.items():
                best[i][span] = max(score, best[i].get(span, 0.0))
        results = []
        for text, spans, impossible in zip(contexts, best, none, strict=True):
            found = [{"score": score, "start": start, "end": end, "answer": text[start:end]} for (start, end), score in spans.items()]
            if handle_impossible_answer:
                found.append({"score": impossible, "start": 0, "end": 0, "answer": ""})
            found = sorted(found, key=lambda answer: -answer["score"])[:count]
            results.append(found[0] if count == 1 else found)
        return results[0] if single else results

    def _logits(self, tokens: PackedTokens) -> list[tuple[Rows, Rows]]:
        return [(rows[:, 0], rows[:, 1]) for rows in split_rows(self._rows(tokens), tokens)]

    def _rows_of(self, tokens: PackedTokens) -> Tensor:
        output = self.model(tokens)
        return F.stack([output.start_logits, output.end_logits], axis=1)


def _word_offsets(encoding: Encoding) -> NDArray[np.int64]:
    """For each token of the context, the first and past-the-end character of its word. Shapes: → (n, 2)."""
    own = np.flatnonzero(encoding.sequence_ids == 1)
    begins = np.flatnonzero(np.diff(encoding.word_ids[own], prepend=-1))
    ends = np.r_[begins[1:], len(own)] - 1
    offsets = encoding.offsets.copy()
    offsets[own] = np.repeat(np.c_[offsets[own[begins], 0], offsets[own[ends], 1]], np.diff(np.r_[begins, len(own)]), axis=0)
    return offsets


def _candidates(part: Encoding, starts: Rows, ends: Rows, longest: int, count: int) -> tuple[dict[tuple[int, int], float], float]:
    """The `count` best different spans of whole words in a window, with their scores; and the score of no answer.

    Shapes: starts, ends (n,) logits.
    """
    own = np.flatnonzero(part.sequence_ids == 1)
    seen = np.r_[0, own]  # the first token stands for no answer
    start_scores, end_scores = (softmax(logits[seen].astype(np.float64)) for logits in (starts, ends))
    impossible = float(start_scores[0] * end_scores[0])
    longest = min(longest, len(own))
    first = np.repeat(np.arange(len(own)), longest)
    last = first + np.tile(np.arange(longest), len(own))
    first, last = first[last < len(own)], last[last < len(own)]
    scores = start_scores[1:][first] * end_scores[1:][last]
    found: dict[tuple[int, int], float] = {}
    for i in np.argsort(-scores, kind="stable").tolist():
        found.setdefault((int(part.offsets[own[first[i]], 0]), int(part.offsets[own[last[i]], 1])), float(scores[i]))
        if len(found) == count:
            break
    return found, impossible

"""From texts to answers in one call: tokenizer, model and decoding of its logits, with the results of transformers' pipelines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from minigrad.data.by_length import BATCH_TOKENS
from minigrad.errors import ArgumentError
from minigrad.files import listing, quoted
from minigrad.pipeline.base import Pipeline
from minigrad.pipeline.entities import TokenClassification
from minigrad.pipeline.fill_mask import FillMask
from minigrad.pipeline.question_answering import QuestionAnswering
from minigrad.pipeline.sentences import FeatureExtraction, SentenceSimilarity
from minigrad.pipeline.text_classification import TextClassification

__all__ = [
    "TASKS", "FeatureExtraction", "FillMask", "Pipeline", "QuestionAnswering", "SentenceSimilarity", "TextClassification",
    "TokenClassification", "pipeline",
]  # fmt: skip

TASKS: Mapping[str, type[Pipeline]] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "fill-mask": FillMask,
    "question-answering": QuestionAnswering,
    "feature-extraction": FeatureExtraction,
    "sentence-similarity": SentenceSimilarity,
}


def pipeline(
    task: str,
    directory_or_name: str | os.PathLike[str],
    *,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = True,
    workers: int | str = 1,
    device: str | None = None,
    **options: Any,
) -> Any:
    """Load a function of texts for one of `TASKS`, from a model directory, a named checkpoint or a Hugging Face id.

    max_length: cut longer texts to this many tokens; None refuses texts that are too long for the model (question answering and token
    classification cut nothing: they read long texts in overlapping windows, of max_length tokens if it is given). batch_tokens: maximum
    tokens computed at once; texts are batched by length and never padded. progress: show the progress of long work on standard error, as a
    bar, or without a terminal as a line every half minute. workers: processes that compute, "auto" for one per processor (see
    `workers.Replicas`; fill-mask and sentence-similarity use one). device: where the model computes, "cpu", "cuda" or "auto" (the GPU if it
    can be used). options: keyword arguments of the task's `run`, for every call.
    Raises: ArgumentError for an unknown task or option; WeightFileError (code no-head) for a checkpoint without a head for the task;
    otherwise as `minigrad.models.load`.
    """
    kind = TASKS.get(task) if isinstance(task, str) else None
    if kind is None:
        raise ArgumentError(f"task must be one of {listing(TASKS)}, got {quoted(task)}")
    return kind.from_pretrained(
        directory_or_name,
        max_length=max_length,
        batch_tokens=batch_tokens,
        progress=progress,
        workers=workers,
        device=device,
        **options,
    )

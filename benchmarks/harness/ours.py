"""minigrad's side: a BERT that trains with a team of workers and predicts on packed tokens, as users write it."""

from __future__ import annotations

import time
from functools import cached_property

import numpy as np

import minigrad as mg
from harness.work import CLASSES, TAGS, Work
from minigrad.data.loader import Batch
from minigrad.models import BertConfig, BertForSequenceClassification, BertForTokenClassification


class Minigrad:
    """workers, capture: as `mg.train.Team` takes them."""

    def __init__(self, work: Work, workers: int | str, capture: bool = False) -> None:
        mg.manual_seed(0)
        size, on_tokens = work.size, work.head == "token"
        config = BertConfig(
            num_hidden_layers=size.layers,
            hidden_size=size.hidden,
            num_attention_heads=size.heads,
            intermediate_size=size.intermediate,
            id2label={i: str(i) for i in range(TAGS if on_tokens else CLASSES)},
        )
        self.model = (BertForTokenClassification if on_tokens else BertForSequenceClassification)(config)
        self.objective = mg.train.TokenClasses() if on_tokens else mg.train.SequenceClasses()
        self.workers, self.capture = workers, capture
        self.logits_of = mg.workers.Replicas(lambda tokens: self.model(tokens).logits, workers)
        self.batches = []
        for texts, labels in zip(work.batches, work.labels(), strict=True):
            tokens = mg.data.PackedTokens.of([np.array(text) for text in texts])
            of_texts, of_tokens = (None, np.concatenate(labels)) if on_tokens else (np.array(labels), None)
            self.batches.append(Batch(tokens, of_texts, of_tokens, np.arange(len(texts))))

    @cached_property
    def optimizer(self) -> mg.optim.AdamW:
        """Created at the first training step, so that inference is measured without gradients and moments."""
        return mg.optim.AdamW(self.model.named_parameters(), lr=1e-5, weight_decay=0.01)

    @cached_property
    def team(self) -> mg.train.Team:
        """Created at the first training step, like the optimizer."""
        self.logits_of.close()  # its processes must not count in training
        return mg.train.Team(mg.train.LossOf(self.model, self.objective), self.optimizer, workers=self.workers, capture=self.capture)

    def train(self) -> float:
        """Seconds per batch of a pass of training steps."""
        team, started = self.team, time.perf_counter()
        for batch in self.batches:
            team.backward(batch)
            team.step()
        return (time.perf_counter() - started) / len(self.batches)

    def infer(self) -> float:
        """Seconds per batch of a pass of predictions."""
        started = time.perf_counter()
        with self.model.evaluating():
            for batch in self.batches:
                self.logits_of(batch.tokens)
        return (time.perf_counter() - started) / len(self.batches)

    def close(self) -> None:
        """End the workers."""
        if "team" in vars(self):
            self.team.close()
        self.logits_of.close()

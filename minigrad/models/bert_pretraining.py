"""BERT's pretraining heads: masked-token, next-token and next-sentence prediction.

They are held under the published name `cls` and take the inputs of all heads (see `bert`).
"""

from __future__ import annotations

import logging
from typing import Any, Unpack

from minigrad import functional as F
from minigrad.errors import ArgumentError
from minigrad.models import heads
from minigrad.models.bert import BertModel, BertPretrained
from minigrad.models.blocks import activated
from minigrad.models.config import BertConfig
from minigrad.models.encoding import Extras
from minigrad.models.losses import next_token_labels, token_labels, token_loss
from minigrad.models.outputs import LogitsOutput, PreTrainingOutput
from minigrad.nn import LayerNorm, Linear, Module
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor, TensorLike

logger = logging.getLogger("minigrad")


# ---------------------------------------------------------------- the parts of heads
class BertPredictionHeadTransform(Module):
    """layer_norm(activation(dense(x))). Shapes: (rows, hidden) → the same."""

    def __init__(self, config: BertConfig) -> None:
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.hidden_act = config.hidden_act

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(activated(x, self.dense, self.hidden_act))  # type: ignore[no-any-return]


class BertLMPredictionHead(heads.WordScores):
    """decoder(transform(x)). Shapes: (rows, hidden) → (rows, vocabulary)."""

    def __init__(self, config: BertConfig, table: Parameter) -> None:
        self.transform = BertPredictionHeadTransform(config)
        super().__init__(config, table)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x))  # type: ignore[no-any-return]


class BertHeads(Module):
    """The module published as `cls`: the head on tokens, the head on sentence pairs, or both."""

    predictions: BertLMPredictionHead
    seq_relationship: Linear

    def __init__(self, config: BertConfig, table: Parameter | None = None, pairs: bool = False) -> None:
        if table is not None:
            self.predictions = BertLMPredictionHead(config, table)
        if pairs:
            self.seq_relationship = Linear(config.hidden_size, 2, std=config.initializer_range)


# ---------------------------------------------------------------- models
class BertForMaskedLM(BertPretrained):
    """BERT with a score for every token of the vocabulary at every position.

    labels: (batch, longest) or (rows,), the original token, -100 where nothing is to be predicted and at padding. num_items_in_batch: the
    number of labels in the whole step, if this is a micro-batch. labelled_only: compute the logits of labelled tokens only (in a padded
    batch row by row), which saves most of the head's work when few are masked. rows: compute the logits of these packed rows only,
    without a loss. Shapes: logits (batch, longest, vocabulary), packed (rows, vocabulary), with labelled_only (labelled tokens,
    vocabulary), with m rows (m, vocabulary). Raises: as BertModel; see `token_labels`.
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertHeads(config, self.bert.embeddings.word_embeddings.weight)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        *,
        labelled_only: bool = False,
        rows: TensorLike | None = None,
        num_items_in_batch: float | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        encoded = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.word_output(encoded, self.cls.predictions, labels, self.config.vocab_size, num_items_in_batch, labelled_only, rows)


class BertLMHeadModel(BertPretrained):
    """BERT with a score for every token of the vocabulary to come next. Its attention is causal if the configuration says `is_decoder`.

    labels: (batch, longest) or (rows,), usually the input_ids with -100 at padding: each token predicts the next one's label.
    num_items_in_batch: the number of labels in the whole step. Shapes: as BertForMaskedLM. Raises: as BertModel; see `token_labels`.
    """

    def __init__(self, config: BertConfig) -> None:
        if not config.is_decoder:
            logger.warning("BertLMHeadModel: is_decoder is false in this configuration, so a token also sees those that follow it")
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertHeads(config, self.bert.embeddings.word_embeddings.weight)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        *,
        num_items_in_batch: float | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        encoded = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.token_output(encoded, self.cls.predictions(encoded.rows), labels, num_items_in_batch, next_token_labels)


class BertForNextSentencePrediction(BertPretrained):
    """BERT with two scores for a pair of texts: that the second follows the first (class 0), or does not (class 1).

    labels: (batch,) integers, -100 ignored. Shapes: logits (batch, 2). Raises: as BertModel.
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        self.cls = BertHeads(config, pairs=True)

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None, **extras: Unpack[Extras]
    ) -> LogitsOutput:
        encoded = self.bert.encode(input_ids, attention_mask, token_type_ids, first_only=True, **extras)
        return heads.class_output(encoded, self.cls.seq_relationship(self.bert.pooled(encoded)), labels)


class BertForPreTraining(BertPretrained):
    """BERT with both pretraining heads: masked tokens and sentence pairs. Its loss is the sum of the two.

    labels: as BertForMaskedLM; next_sentence_label: (batch,), as BertForNextSentencePrediction.
    Raises: as BertModel; ArgumentError if one kind of labels comes without the other.
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        self.cls = BertHeads(config, self.bert.embeddings.word_embeddings.weight, pairs=True)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        next_sentence_label: TensorLike | None = None,
        **extras: Unpack[Extras],
    ) -> PreTrainingOutput:
        if (labels is None) != (next_sentence_label is None):
            raise ArgumentError("the loss of BertForPreTraining needs both labels and next_sentence_label (or use the model of one head)")
        encoded = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        words, pairs = self.cls.predictions(encoded.rows), self.cls.seq_relationship(self.bert.pooled(encoded))
        loss = None
        if labels is not None and next_sentence_label is not None:
            ids = token_labels(labels, encoded.tokens, self.config.vocab_size)
            loss = token_loss(words, ids, None) + F.cross_entropy(pairs, next_sentence_label)
        return PreTrainingOutput(encoded.repadded(words), pairs, loss, encoded.hidden_states, encoded.attentions)

"""BERT and its fine-tuning heads (`bert_pretraining` has the others). Devlin et al., arXiv 1810.04805.

Attribute paths are the published ones, so parameter path = state-dict name = the name used to freeze. Every head takes the same inputs:
padded arrays (input_ids, attention_mask with 1 or True for real tokens, token_type_ids, all (batch, longest); NumPy or Tensor) or one
PackedTokens, plus labels and the keywords of `Extras`. Padded input gives padded results with zeros at the pads.
"""

from __future__ import annotations

from typing import Any, Unpack

from minigrad.errors import ArgumentError
from minigrad.models import heads
from minigrad.models.blocks import Encoder, Pooler
from minigrad.models.config import BertConfig
from minigrad.models.embeddings import Embeddings
from minigrad.models.encoding import Encoded, Extras, OutputOptions, as_tokens, run_encoder
from minigrad.models.outputs import EncoderOutput, LogitsOutput, QuestionAnsweringOutput
from minigrad.models.pretrained import PretrainedModel
from minigrad.nn import Dropout, Linear
from minigrad.packing import PackedTokens
from minigrad.tensor import Tensor, TensorLike


class BertPretrained(PretrainedModel):
    """Base of the family's models: the attribute that holds the encoder, the prefix of names in files, and the configuration's class."""

    base_prefix = "bert"
    family = "bert"
    config_class = BertConfig


class BertModel(BertPretrained):
    """The encoder without a head. With `is_decoder` in the configuration its attention is causal.

    Raises: ShapeError, IndexRangeError, ArgumentError for input the model cannot read.
    """

    base_prefix = ""
    optional = ("pooler",)

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, **extras: Unpack[Extras]
    ) -> EncoderOutput:
        encoded = self.encode(input_ids, attention_mask, token_type_ids, **extras)
        pooled = None if self.pooler is None else self.pooler(encoded.first)
        return EncoderOutput(encoded.repadded(encoded.rows), pooled, encoded.hidden_states, encoded.attentions)

    def encode(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        first_only: bool = False,
        inputs_embeds: TensorLike | None = None,
        **options: Unpack[OutputOptions],
    ) -> Encoded:
        """The encoder's rows, for a head. first_only: see `run_encoder`."""
        if not self._has_paths:  # called without __call__
            self._set_paths()
        tokens, words = as_tokens(input_ids, attention_mask, token_type_ids, inputs_embeds, self.config.pad_token_id)
        return run_encoder(self.config, self.encoder, self.embeddings(tokens, words), tokens, first_only, **options)

    def pooled(self, inputs: PackedTokens | Encoded) -> Tensor:
        """The pooled [CLS] of packed tokens, for which the last layer computes no other row, or of a result of `encode`.

        Shapes: → (sequences, hidden).
        Raises: ArgumentError for a model without a pooler.
        """
        if self.pooler is None:
            raise ArgumentError("this BertModel was built without a pooling layer")
        return self.pooler((inputs if isinstance(inputs, Encoded) else self.encode(inputs, first_only=True)).first)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- heads on tokens
class BertForTokenClassification(BertPretrained):
    """BERT with a linear classifier on every token.

    labels: (batch, longest) or (rows,), -100 where there is none and at padding. num_items_in_batch: the number of labels in the whole
    step, if this is a micro-batch. Raises: as BertModel; see `token_labels`.
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels, std=config.initializer_range)

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
        logits = self.classifier(self.dropout(encoded.rows, encoded.tokens.packing))
        return heads.token_output(encoded, logits, labels, num_items_in_batch)


class BertForQuestionAnswering(BertPretrained):
    """BERT with two scores for every token: that the answer starts there, and that it ends there.

    start_positions, end_positions: (batch,), token positions in the sequence; see `span_loss`. Only real tokens can be an answer: logits
    at padding are returned as zeros and mean nothing. Raises: as BertModel.
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False)
        self.qa_outputs = Linear(config.hidden_size, 2, std=config.initializer_range)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        **extras: Unpack[Extras],
    ) -> QuestionAnsweringOutput:
        encoded = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.span_output(encoded, self.qa_outputs(encoded.rows), start_positions, end_positions)


# ---------------------------------------------------------------- heads on whole sequences
class BertForSequenceClassification(BertPretrained):
    """BERT with a linear classifier on the pooled [CLS]; with one label a regression (mean squared error).

    labels: (batch,) integers (cross-entropy, -100 ignored); for a regression floats of the logits' shape, or (batch,) with one label;
    for multi-label classification zeros and ones (batch, labels). Raises: as BertModel; see `sequence_loss`.
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels, std=config.initializer_range)

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None, **extras: Unpack[Extras]
    ) -> LogitsOutput:
        encoded = self.bert.encode(input_ids, attention_mask, token_type_ids, first_only=True, **extras)
        logits = self.classifier(self.dropout(self.bert.pooled(encoded), encoded.tokens.packing.first))
        return heads.sequence_output(self.config, encoded, logits, labels)


class BertForMultipleChoice(BertPretrained):
    """BERT with one score for each of several texts, of which one is right.

    Inputs are (batch, choices, longest), or PackedTokens of all examples' choices in order, with num_choices for each example. labels:
    (batch,), the index of the right choice (-100 ignored). Shapes: logits (batch, choices); hidden states and attentions those of
    batch * choices sequences.
    Raises: as BertModel; ShapeError for arrays without an axis of choices, or a number of sequences that num_choices does not divide.
    """

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, 1, std=config.initializer_range)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: TensorLike | None = None,
        *,
        num_choices: int | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        given = heads.flat_choices(input_ids, attention_mask, token_type_ids, extras.get("inputs_embeds"), num_choices)
        extras["inputs_embeds"] = given.inputs_embeds
        encoded = self.bert.encode(given.input_ids, given.attention_mask, given.token_type_ids, first_only=True, **extras)
        scores = self.classifier(self.dropout(self.bert.pooled(encoded), encoded.tokens.packing.first))
        return heads.class_output(encoded, scores.reshape((-1, given.number)), labels)

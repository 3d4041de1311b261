"""BERT and its heads. Devlin et al., arXiv 1810.04805.

Attribute paths are the published ones, so parameter path = state-dict name = the name used to freeze. Every head is called alike: with
padded arrays (input_ids, attention_mask, token_type_ids, all (batch, longest); NumPy or Tensor) or with one PackedTokens, plus labels
and the keywords of `Extras`. Padded input gives padded results with zeros at the pads.
"""

from __future__ import annotations

import logging
from typing import Any, Unpack

from minigrad import functional as F
from minigrad.errors import ArgumentError, ShapeError
from minigrad.models.blocks import Embeddings, Encoder, Pooler, Trace, activated
from minigrad.models.border import Encoded, Extras, as_tokens
from minigrad.models.config import BertConfig
from minigrad.models.heads import Decoder, sequence_output, span_output, token_output, word_output
from minigrad.models.losses import IGNORED, next_token_labels, token_labels
from minigrad.models.outputs import EncoderOutput, LogitsOutput, PreTrainingOutput, QuestionAnsweringOutput
from minigrad.models.pretrained import PretrainedModel
from minigrad.nn import Dropout, LayerNorm, Linear, Module, init
from minigrad.packing import PackedTokens, host_array
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor, TensorLike

logger = logging.getLogger("minigrad")


class BertModel(PretrainedModel):
    """The encoder without a head. With `is_decoder` in the configuration a token attends to those before it only.

    Raises: ShapeError, IndexRangeError, ArgumentError for input the model cannot read.
    """

    base_prefix = ""

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, **extras: Unpack[Extras]
    ) -> EncoderOutput:
        found = self.encode(input_ids, attention_mask, token_type_ids, **extras)
        pooled = None if self.pooler is None else self.pooler(found.first)
        return EncoderOutput(found.returned(found.rows), pooled, found.hidden_states, found.attentions)

    def encode(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        first_only: bool = False,
        inputs_embeds: TensorLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Encoded:
        """The encoder's rows, for a head. first_only: the head reads no row but the first of each sequence, so that the last layer need
        not compute others."""
        if not self._knows_paths:  # called past __call__
            self._name()
        tokens, words = as_tokens(input_ids, attention_mask, token_type_ids, inputs_embeds, self.config.pad_token_id)
        trace = Trace([] if output_hidden_states else None, [] if output_attentions else None)
        wants_all = output_hidden_states or output_attentions or self.config.is_decoder  # a decoder's first row sees itself alone
        first_only = first_only and not wants_all
        rows = self.encoder(self.embeddings(tokens, words), tokens.packing, first_only, trace)
        return Encoded(tokens, rows, first_only, trace)

    def pooled(self, found: PackedTokens | Encoded) -> Tensor:
        """The pooled [CLS] alone, of packed tokens or of what `encode` found: the last layer computes no other row.

        Shapes: → (sequences, hidden).
        """
        if self.pooler is None:
            raise ArgumentError("this BertModel was built without a pooling layer")
        return self.pooler((found if isinstance(found, Encoded) else self.encode(found, first_only=True)).first)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- the parts of heads
class BertPredictionHeadTransform(Module):
    """layer_norm(activation(dense(x))). Shapes: (rows, hidden) → the same."""

    def __init__(self, config: BertConfig) -> None:
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.hidden_act = config.hidden_act

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(activated(x, self.dense, self.hidden_act))  # type: ignore[no-any-return]


class BertLMPredictionHead(Module):
    """A score for every token of the vocabulary; the decoder is the table of word embeddings, unless the configuration unties them.

    The bias is one parameter with two published names, saved under the one that others read: the decoder's, if that is untied.
    """

    def __init__(self, config: BertConfig, table: Parameter) -> None:
        self.transform = BertPredictionHeadTransform(config)
        if config.tie_word_embeddings:
            self.bias = init.zeros(config.vocab_size)
            self.decoder = Decoder(table, self.bias)
        else:
            self.decoder = Decoder(init.normal(table.shape, config.initializer_range), init.zeros(config.vocab_size))
            self.bias = self.decoder.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x))  # type: ignore[no-any-return]


class BertHeads(Module):
    """What stands under the published name `cls`: the head on tokens, the one on sentence pairs, or both."""

    predictions: BertLMPredictionHead
    seq_relationship: Linear

    def __init__(self, config: BertConfig, table: Parameter | None = None, pairs: bool = False) -> None:
        if table is not None:
            self.predictions = BertLMPredictionHead(config, table)
        if pairs:
            self.seq_relationship = Linear(config.hidden_size, 2, std=config.initializer_range)


def _classifier(config: BertConfig, classes: int) -> tuple[Dropout, Linear]:
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return Dropout(rate), Linear(config.hidden_size, classes, std=config.initializer_range)


# ---------------------------------------------------------------- heads on tokens
class BertForMaskedLM(PretrainedModel):
    """BERT with a score for every token of the vocabulary at every place.

    labels: (batch, longest) or (rows,), the token that stood there, -100 where none is asked for and at padding. num_items_in_batch: how
    many labels the whole step has, if this batch is part of one. labelled_only: compute the logits of labelled tokens alone (in a padded
    batch row by row), which is most of the work saved where few are masked. Shapes: logits (batch, longest, vocabulary), packed
    (rows, vocabulary), with labelled_only (labelled tokens, vocabulary). Raises: as BertModel; see `token_labels`.
    """

    base_prefix = "bert"
    head = ("cls",)

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
        num_items_in_batch: float | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        return word_output(found, self.cls.predictions, labels, self.config.vocab_size, num_items_in_batch, labelled_only)


class BertLMHeadModel(PretrainedModel):
    """BERT with a score for every token of the vocabulary coming next. It reads from left to right if the configuration says `is_decoder`.

    labels: (batch, longest) or (rows,), usually input_ids themselves with -100 at padding: each token predicts the next one's label.
    num_items_in_batch: how many labels the whole step has. Shapes: as BertForMaskedLM. Raises: as BertModel; see `token_labels`.
    """

    base_prefix = "bert"
    head = ("cls",)

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
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        logits, loss = self.cls.predictions(found.rows), None
        if labels is not None:
            ids = next_token_labels(labels, found.tokens, self.config.vocab_size)
            loss = F.cross_entropy(logits, ids, ignore_index=IGNORED, denominator=num_items_in_batch)
        return LogitsOutput(found.returned(logits), loss, found.hidden_states, found.attentions)


class BertForTokenClassification(PretrainedModel):
    """BERT with a linear classifier on every token.

    labels: (batch, longest) or (rows,), -100 where none is known and at padding. num_items_in_batch: how many labels the whole step has, if
    this batch is part of one. Raises: as BertModel; see `token_labels`.
    """

    base_prefix = "bert"
    head = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout, self.classifier = _classifier(config, config.num_labels)

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
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        logits = self.classifier(self.dropout(found.rows, found.tokens.packing))
        return token_output(found, logits, labels, num_items_in_batch)


class BertForQuestionAnswering(PretrainedModel):
    """BERT with two scores for every token: that the answer starts there, and that it ends there.

    start_positions, end_positions: (batch,), places in the sequence; see `span_loss`. An answer is looked for among real tokens alone:
    logits at padding are returned as zeros and mean nothing. Raises: as BertModel.
    """

    base_prefix = "bert"
    head = ("qa_outputs",)

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
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        return span_output(found, self.qa_outputs(found.rows), start_positions, end_positions)


# ---------------------------------------------------------------- heads on whole sequences
class BertForSequenceClassification(PretrainedModel):
    """BERT with a linear classifier on the pooled [CLS]; with one label a regression (mean squared error).

    labels: (batch,) integers (cross-entropy, -100 ignored), or for a regression floats of the logits' shape, (batch,) where there is one
    label, or for several classes at once their zeros and ones (batch, labels). Raises: as BertModel; see `sequence_loss`.
    """

    base_prefix = "bert"
    head = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        self.dropout, self.classifier = _classifier(config, config.num_labels)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: TensorLike | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, first_only=True, **extras)
        logits = self.classifier(self.dropout(self.bert.pooled(found), found.tokens.packing.first))
        return sequence_output(self.config, found, logits, labels)


class BertForMultipleChoice(PretrainedModel):
    """BERT with one score for each of several texts, of which one is right.

    Inputs are (batch, choices, longest), or PackedTokens of all choices in turn with their number as num_choices. labels: (batch,), which
    choice is right (-100 ignored). Shapes: logits (batch, choices); hidden states and attentions as of batch * choices sequences.
    Raises: as BertModel; ShapeError for arrays without an axis of choices, or sequences that do not divide among the choices.
    """

    base_prefix = "bert"
    head = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        self.dropout, self.classifier = _classifier(config, 1)

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
        if not isinstance(input_ids, PackedTokens):
            if extras.get("inputs_embeds") is not None:
                embeds = F.as_tensor(extras["inputs_embeds"])  # type: ignore[arg-type]
                num_choices, extras["inputs_embeds"] = _choices("inputs_embeds", embeds, 4), embeds.reshape((-1, *embeds.shape[2:]))
            else:
                input_ids = host_array("input_ids", input_ids)
                num_choices, input_ids = _choices("input_ids", input_ids, 3), input_ids.reshape((-1, input_ids.shape[2]))
            attention_mask = _flat("attention_mask", attention_mask, "biuf")
            token_type_ids = _flat("token_type_ids", token_type_ids, "iu")
        elif num_choices is None or num_choices < 1 or len(input_ids.packing) % num_choices:
            raise ShapeError(f"PackedTokens of {len(input_ids.packing)} sequences do not divide among num_choices={num_choices!r} choices")
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, first_only=True, **extras)
        scores = self.classifier(self.dropout(self.bert.pooled(found), found.tokens.packing.first))
        logits = scores.reshape((-1, num_choices))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return LogitsOutput(logits, loss, found.hidden_states, found.attentions)


def _choices(name: str, array: Any, ndim: int) -> int:
    if array.ndim != ndim or 0 in array.shape:
        sides = "(batch, choices, longest" + (", hidden)" if ndim == 4 else ")")
        raise ShapeError(f"{name} must have shape {sides} and hold something, got {array.shape}")
    return int(array.shape[1])


def _flat(name: str, array: Any, kinds: str) -> Any:
    """The choices of all examples in turn. Shapes: (batch, choices, longest) → (batch * choices, longest)."""
    if array is None:
        return None
    array = host_array(name, array, kinds)
    _choices(name, array, 3)
    return array.reshape((-1, array.shape[2]))


class BertForNextSentencePrediction(PretrainedModel):
    """BERT with two scores for a pair of texts: that the second follows the first (class 0), or does not (class 1).

    labels: (batch,) integers, -100 ignored. Shapes: logits (batch, 2). Raises: as BertModel.
    """

    base_prefix = "bert"
    head = ("cls",)

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        self.cls = BertHeads(config, pairs=True)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: TensorLike | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, first_only=True, **extras)
        logits = self.cls.seq_relationship(self.bert.pooled(found))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return LogitsOutput(logits, loss, found.hidden_states, found.attentions)


class BertForPreTraining(PretrainedModel):
    """BERT with both heads that it was trained with: masked tokens and sentence pairs. Its loss is the sum of the two.

    labels: as BertForMaskedLM; next_sentence_label: (batch,), as BertForNextSentencePrediction.
    Raises: as BertModel; ArgumentError if one kind of labels comes without the other.
    """

    base_prefix = "bert"
    head = ("cls",)

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
        found = self.bert.encode(input_ids, attention_mask, token_type_ids, **extras)
        words, pairs = self.cls.predictions(found.rows), self.cls.seq_relationship(self.bert.pooled(found))
        loss = None
        if labels is not None and next_sentence_label is not None:
            ids = token_labels(labels, found.tokens, self.config.vocab_size)
            loss = F.cross_entropy(words, ids, ignore_index=IGNORED) + F.cross_entropy(pairs, next_sentence_label)
        return PreTrainingOutput(found.returned(words), pairs, loss, found.hidden_states, found.attentions)

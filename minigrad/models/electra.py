"""ELECTRA's discriminator and its heads: BERT, trained to tell which tokens were replaced. Clark et al., arXiv 2003.10555.

Its embeddings may be narrower than its layers, it has no pooler, and its heads differ from BERT's. Every head takes BERT's inputs, padded
arrays or PackedTokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from minigrad import functional as F
from minigrad.models import heads
from minigrad.models.blocks import Encoder, activated
from minigrad.models.config import WORD_EMBEDDINGS, PretrainedConfig
from minigrad.models.embeddings import Embeddings
from minigrad.models.encoding import Encoded, Extras, OutputOptions, as_tokens, run_encoder
from minigrad.models.losses import IGNORED, checked_count, token_labels
from minigrad.models.outputs import EncoderOutput, LogitsOutput, QuestionAnsweringOutput
from minigrad.models.pretrained import PretrainedModel
from minigrad.nn import Dropout, Linear, Module
from minigrad.packing import PackedTokens, host_array
from minigrad.tensor import Tensor, TensorLike


@dataclass
class ElectraConfig(PretrainedConfig):
    """Configuration of an ELECTRA. Field names and defaults are those of the published config.json (electra-small-discriminator).

    Raises: ConfigError naming the key and value for anything that cannot be built.
    """

    model_types: ClassVar[tuple[str, ...]] = ("electra",)
    size_tensors: ClassVar[Mapping[str, tuple[str, int]]] = {
        **PretrainedConfig.size_tensors,
        "embedding_size": (WORD_EMBEDDINGS, 1),
        "hidden_size": ("encoder.layer.0.intermediate.dense.weight", 1),
    }

    embedding_size: int = 128
    """The width of the embeddings; a linear layer projects them to `hidden_size` if that differs."""
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024

    def check(self) -> None:
        super().check()
        self._check_int("embedding_size", 1)

    def encoder_size(self) -> int:
        narrower = self.hidden_size - self.embedding_size
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size + 2
        projection = (self.embedding_size + 1) * self.hidden_size if narrower else 0
        return super().encoder_size() - rows * narrower + projection


class ElectraPretrained(PretrainedModel):
    """Base of the family's models: the attribute that holds the encoder, the prefix of names in files, and the configuration's class."""

    base_prefix = "electra"
    family = "electra"
    config_class = ElectraConfig


class ElectraModel(ElectraPretrained):
    """The encoder without a head; its output has no pooler_output, and `inputs_embeds` are as wide as the embeddings.

    Raises: ShapeError, IndexRangeError, ArgumentError for input the model cannot read.
    """

    base_prefix = ""

    def __init__(self, config: ElectraConfig) -> None:
        width, h = config.embedding_size, config.hidden_size
        self.config = config
        self.embeddings = Embeddings(config, width)
        self.embeddings_project = Linear(width, h, std=config.initializer_range) if width != h else None
        self.encoder = Encoder(config)

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, **extras: Unpack[Extras]
    ) -> EncoderOutput:
        encoded = self.encode(input_ids, attention_mask, token_type_ids, **extras)
        return EncoderOutput(encoded.repadded(encoded.rows), None, encoded.hidden_states, encoded.attentions)

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
        x = self.embeddings(tokens, words)
        if self.embeddings_project is not None:
            x = self.embeddings_project(x)
        return run_encoder(self.config, self.encoder, x, tokens, first_only, **options)


# ---------------------------------------------------------------- heads on tokens
class ElectraDiscriminatorPredictions(Module):
    """dense_prediction(activation(dense(x))). Shapes: (rows, hidden) → (rows, 1)."""

    def __init__(self, config: ElectraConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.dense, self.dense_prediction = Linear(h, h, std=std), Linear(h, 1, std=std)
        self.hidden_act = config.hidden_act

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_prediction(activated(x, self.dense, self.hidden_act))  # type: ignore[no-any-return]


class ElectraForPreTraining(ElectraPretrained):
    """ELECTRA with a score for every token: that it was replaced by another one.

    labels: (batch, longest) or (rows,), 1 where a token was replaced, 0 where it was not, -100 to be ignored, as are those at padding.
    The loss is the mean binary cross-entropy; num_items_in_batch: the number of labels in the whole step, if this is a micro-batch.
    Shapes: logits (batch, longest), packed (rows,).
    Raises: as ElectraModel; ShapeError, DTypeError, IndexRangeError for labels that do not fit.
    """

    def __init__(self, config: ElectraConfig) -> None:
        self.config = config
        self.electra = ElectraModel(config)
        self.discriminator_predictions = ElectraDiscriminatorPredictions(config)

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
        encoded = self.electra.encode(input_ids, attention_mask, token_type_ids, **extras)
        logits = self.discriminator_predictions(encoded.rows)
        loss = None if labels is None else _replaced_loss(logits, labels, encoded.tokens, num_items_in_batch)
        return LogitsOutput(encoded.repadded(logits)[..., 0], loss, encoded.hidden_states, encoded.attentions)


def _replaced_loss(logits: Tensor, labels: Any, tokens: PackedTokens, num_items_in_batch: float | None) -> Tensor:
    """Shapes: logits (rows, 1), labels (batch, longest) or (rows,) → ()."""
    given = host_array("labels", labels)
    if given.shape == tokens.padded_shape:
        _, places = tokens.padded_rows()
        kept = given.reshape(-1) * 0 + IGNORED
        kept[places] = given.reshape(-1)[places]
        given = kept.reshape(given.shape)
    ids = token_labels(given, tokens, 2)
    rows = (ids != IGNORED).nonzero()[0]
    scores, wanted = F.take_rows(logits, rows), Tensor(ids[rows, None], dtype=logits.dtype, device=logits.device)
    count = checked_count(num_items_in_batch)
    return F.bce_with_logits(scores, wanted) if count is None else F.bce_with_logits(scores, wanted, reduction="sum") / count


class ElectraForTokenClassification(ElectraPretrained):
    """ELECTRA with a linear classifier on every token.

    labels, num_items_in_batch: as BertForTokenClassification. Raises: as ElectraModel; see `token_labels`.
    """

    def __init__(self, config: ElectraConfig) -> None:
        self.config = config
        self.electra = ElectraModel(config)
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
        encoded = self.electra.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.token_output(encoded, self.classifier(self.dropout(encoded.rows, encoded.tokens.packing)), labels, num_items_in_batch)


class ElectraForQuestionAnswering(ElectraPretrained):
    """ELECTRA with two scores for every token: that the answer starts there, and that it ends there.

    start_positions, end_positions: (batch,), token positions in the sequence; see `span_loss`. Raises: as ElectraModel.
    """

    def __init__(self, config: ElectraConfig) -> None:
        self.config = config
        self.electra = ElectraModel(config)
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
        encoded = self.electra.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.span_output(encoded, self.qa_outputs(encoded.rows), start_positions, end_positions)


# ---------------------------------------------------------------- the head on whole sequences
class ElectraForSequenceClassification(ElectraPretrained):
    """ELECTRA with a two-layer classifier on the first token; with one label a regression (mean squared error).

    labels: as BertForSequenceClassification. Raises: as ElectraModel; see `sequence_loss`.
    """

    def __init__(self, config: ElectraConfig) -> None:
        self.config = config
        self.electra = ElectraModel(config)
        self.classifier = heads.ClassificationHead(config, "gelu")

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None, **extras: Unpack[Extras]
    ) -> LogitsOutput:
        encoded = self.electra.encode(input_ids, attention_mask, token_type_ids, first_only=True, **extras)
        return heads.sequence_output(self.config, encoded, self.classifier(encoded), labels)

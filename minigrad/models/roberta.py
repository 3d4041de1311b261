"""RoBERTa and its heads; XLM-RoBERTa and CamemBERT are the same model with other vocabularies. Liu et al., arXiv 1907.11692.

It differs from BERT in its positions, which start after `pad_token_id` and skip padding, and in its heads. Every head takes BERT's
inputs, padded arrays or PackedTokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from minigrad.models import heads
from minigrad.models.blocks import Encoder, Pooler, activated
from minigrad.models.config import PretrainedConfig
from minigrad.models.embeddings import Lookup, check_length, embed
from minigrad.models.encoding import Encoded, Extras, OutputOptions, as_tokens, run_encoder
from minigrad.models.outputs import EncoderOutput, LogitsOutput, QuestionAnsweringOutput
from minigrad.models.pretrained import PretrainedModel
from minigrad.nn import Dropout, Embedding, LayerNorm, Linear, Module
from minigrad.packing import IntArray, PackedTokens, host_array
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor, TensorLike

PUBLISHED_CLASSES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
"""The prefix of class names in `architectures`, by `model_type`."""


@dataclass
class RobertaConfig(PretrainedConfig):
    """Configuration of a RoBERTa. Defaults are those of keys that config.json leaves out.

    The published roberta-base has max_position_embeddings=514 (for 512 tokens), type_vocab_size=1 and layer_norm_eps=1e-5.
    Raises: ConfigError naming the key and value for anything that cannot be built.
    """

    model_types: ClassVar[tuple[str, ...]] = tuple(PUBLISHED_CLASSES)

    vocab_size: int = 50265
    pad_token_id: int = 1
    model_type: str = "roberta"
    """Which of the family's `model_types` the model is saved under."""

    def check(self) -> None:
        super().check()
        if self.model_type not in self.model_types:
            raise self._refused("model_type", self.model_type, f"supported are {', '.join(self.model_types)}")
        if self.max_position_embeddings <= self.pad_token_id + 1:
            message = f"leaves no room behind pad_token_id {self.pad_token_id}"
            raise self._refused("max_position_embeddings", self.max_position_embeddings, message)

    def to_dict(self, architecture: str) -> dict[str, Any]:
        published = PUBLISHED_CLASSES[self.model_type] + architecture.removeprefix("Roberta")
        return super().to_dict(published) | {"model_type": self.model_type}


class RobertaEmbeddings(Module):
    """Word + segment + position embeddings, normalised; neither the word nor the position embedding of [PAD] is trained."""

    def __init__(self, config: RobertaConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, h, std=std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, h, std=std)
        self.LayerNorm = LayerNorm(h, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.position_embeddings = Embedding(config.max_position_embeddings, h, std=std)
        self.pad_token_id = config.pad_token_id

    def forward(self, tokens: PackedTokens, positions: IntArray, words: Tensor | None = None) -> Tensor:
        """Shapes: positions (rows,) → (rows, hidden); words (rows, hidden) replace the word embeddings."""
        check_length(tokens, positions, self.position_embeddings, first=self.pad_token_id + 1)
        return embed(
            words,
            tokens.packing,
            self.LayerNorm,
            self.dropout,
            Lookup("input_ids", tokens.input_ids, self.word_embeddings, self.pad_token_id),
            Lookup("token_type_ids", tokens.token_type_ids, self.token_type_embeddings),
            Lookup("positions", positions, self.position_embeddings, self.pad_token_id),
        )


def position_ids(tokens: PackedTokens, padded_ids: Any, pad_token_id: int) -> IntArray:
    """pad_token_id + the number of tokens other than [PAD] in the sequence up to and including each one; pad_token_id for [PAD] itself.

    padded_ids: the array that the tokens were packed from, because tokens that a mask hides count unless they are [PAD]. None: count the
    packed tokens. Shapes: padded_ids (batch, longest) or None → (rows,).
    """
    if padded_ids is not None:
        real = host_array("input_ids", padded_ids) != pad_token_id
        return (real.cumsum(axis=1) * real + pad_token_id).reshape(-1)[tokens.places()]  # type: ignore[no-any-return]
    return tokens.packing.counted(tokens.input_ids, pad_token_id, pad_token_id)


class RobertaPretrained(PretrainedModel):
    """Base of the family's models: the attribute that holds the encoder, the prefix of names in files, and the configuration's class."""

    base_prefix = "roberta"
    family = "roberta"
    config_class = RobertaConfig


class RobertaModel(RobertaPretrained):
    """The encoder without a head.

    Positions skip every [PAD], even one that the mask does not hide; with `inputs_embeds` they count every place.
    Raises: ShapeError, IndexRangeError, ArgumentError for input the model cannot read.
    """

    base_prefix = ""
    optional = ("pooler",)

    def __init__(self, config: RobertaConfig, add_pooling_layer: bool = True) -> None:
        self.config = config
        self.embeddings = RobertaEmbeddings(config)
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
        pad = self.config.pad_token_id
        tokens, words = as_tokens(input_ids, attention_mask, token_type_ids, inputs_embeds, pad)
        if words is not None:
            positions = tokens.positions + pad + 1
        else:
            positions = position_ids(tokens, None if isinstance(input_ids, PackedTokens) else input_ids, pad)
        return run_encoder(self.config, self.encoder, self.embeddings(tokens, positions, words), tokens, first_only, **options)


# ---------------------------------------------------------------- heads on tokens
class RobertaLMHead(heads.WordScores):
    """decoder(layer_norm(gelu(dense(x)))). Shapes: (rows, hidden) → (rows, vocabulary)."""

    def __init__(self, config: RobertaConfig, table: Parameter) -> None:
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        super().__init__(config, table)

    def forward(self, x: Tensor) -> Tensor:
        x = activated(x, self.dense, "gelu")
        return self.decoder(self.layer_norm(x))  # type: ignore[no-any-return]


class RobertaForMaskedLM(RobertaPretrained):
    """RoBERTa with a score for every token of the vocabulary at every position.

    labels, num_items_in_batch, labelled_only, rows, Shapes: as BertForMaskedLM. Raises: as RobertaModel; see `token_labels`.
    """

    def __init__(self, config: RobertaConfig) -> None:
        self.config = config
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.lm_head = RobertaLMHead(config, self.roberta.embeddings.word_embeddings.weight)

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
        encoded = self.roberta.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.word_output(encoded, self.lm_head, labels, self.config.vocab_size, num_items_in_batch, labelled_only, rows)


class RobertaForTokenClassification(RobertaPretrained):
    """RoBERTa with a linear classifier on every token.

    labels, num_items_in_batch: as BertForTokenClassification. Raises: as RobertaModel; see `token_labels`.
    """

    def __init__(self, config: RobertaConfig) -> None:
        self.config = config
        self.roberta = RobertaModel(config, add_pooling_layer=False)
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
        encoded = self.roberta.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.token_output(encoded, self.classifier(self.dropout(encoded.rows, encoded.tokens.packing)), labels, num_items_in_batch)


class RobertaForQuestionAnswering(RobertaPretrained):
    """RoBERTa with two scores for every token: that the answer starts there, and that it ends there.

    start_positions, end_positions: (batch,), token positions in the sequence; see `span_loss`. Raises: as RobertaModel.
    """

    def __init__(self, config: RobertaConfig) -> None:
        self.config = config
        self.roberta = RobertaModel(config, add_pooling_layer=False)
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
        encoded = self.roberta.encode(input_ids, attention_mask, token_type_ids, **extras)
        return heads.span_output(encoded, self.qa_outputs(encoded.rows), start_positions, end_positions)


# ---------------------------------------------------------------- the head on whole sequences
class RobertaForSequenceClassification(RobertaPretrained):
    """RoBERTa with a two-layer classifier on the first token; with one label a regression (mean squared error).

    labels: as BertForSequenceClassification. Raises: as RobertaModel; see `sequence_loss`.
    """

    def __init__(self, config: RobertaConfig) -> None:
        self.config = config
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.classifier = heads.ClassificationHead(config, "tanh")

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None, **extras: Unpack[Extras]
    ) -> LogitsOutput:
        encoded = self.roberta.encode(input_ids, attention_mask, token_type_ids, first_only=True, **extras)
        return heads.sequence_output(self.config, encoded, self.classifier(encoded), labels)

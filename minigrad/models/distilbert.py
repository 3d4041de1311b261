"""DistilBERT and its heads: BERT with half the layers and without segments or a pooler. Sanh et al., arXiv 1910.01108.

Its layers compute what BERT's do under other names, but without dropout on the output of the attention block. Every head takes BERT's
inputs, padded arrays or PackedTokens, except token_type_ids; those of PackedTokens are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Unpack

from minigrad import functional as F
from minigrad.models import heads
from minigrad.models.blocks import (
    Trace,
    activated,
    attention_block,
    attention_weights,
    can_fuse,
    feed_forward,
    joint_linear,
    make_adjacent,
    run_layers,
)
from minigrad.models.config import PretrainedConfig
from minigrad.models.embeddings import Lookup, check_length, embed
from minigrad.models.encoding import Encoded, Extras, OutputOptions, as_tokens, run_encoder
from minigrad.models.outputs import EncoderOutput, LogitsOutput, QuestionAnsweringOutput
from minigrad.models.pretrained import PretrainedModel
from minigrad.nn import Dropout, Embedding, LayerNorm, Linear, Module, init
from minigrad.nn.activation import GELU_FORMS
from minigrad.packing import PackedTokens, Packing
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor, TensorLike


@dataclass
class DistilBertConfig(PretrainedConfig):
    """Configuration of a DistilBERT. Fields have BERT's names, config.json DistilBERT's; defaults are those of distilbert-base-uncased.

    Raises: ConfigError naming the key and value for anything that cannot be built.
    """

    model_types: ClassVar[tuple[str, ...]] = ("distilbert",)
    published_keys: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    size_tensors: ClassVar[Mapping[str, tuple[str, int]]] = {
        **{key: tensor for key, tensor in PretrainedConfig.size_tensors.items() if key != "type_vocab_size"},
        "intermediate_size": ("transformer.layer.0.ffn.lin1.weight", 0),
    }

    num_hidden_layers: int = 6
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    type_vocab_size: int = field(default=1, init=False)
    layer_norm_eps: float = field(default=1e-12, init=False)
    classifier_dropout: float | None = field(default=None, init=False)
    is_decoder: bool = field(default=False, init=False)

    def check(self) -> None:
        super().check()
        self._check_number("qa_dropout", 0.0, 1.0)
        self._check_number("seq_classif_dropout", 0.0, 1.0)

    def encoder_size(self) -> int:
        return super().encoder_size() - self.hidden_size  # no segment embeddings


class DistilBertEmbeddings(Module):
    """Word + position embeddings, normalised."""

    def __init__(self, config: DistilBertConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, h, std=std)
        self.position_embeddings = Embedding(config.max_position_embeddings, h, std=std)
        self.LayerNorm = LayerNorm(h, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.pad_token_id = config.pad_token_id

    def forward(self, tokens: PackedTokens, words: Tensor | None = None) -> Tensor:
        """Shapes: → (rows, hidden); words (rows, hidden) replace the word embeddings."""
        check_length(tokens, tokens.positions, self.position_embeddings)
        return embed(
            words,
            tokens.packing,
            self.LayerNorm,
            self.dropout,
            Lookup("input_ids", tokens.input_ids, self.word_embeddings, self.pad_token_id),
            Lookup("positions", tokens.positions, self.position_embeddings),
        )


class DistilBertAttention(Module):
    """Multi-head attention up to `out_lin`, which the layer applies. query_rows, queries: as in `blocks.SelfAttention`."""

    def __init__(self, config: DistilBertConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.heads = config.num_attention_heads
        self.q_lin, self.k_lin, self.v_lin, self.out_lin = (Linear(h, h, std=std) for _ in range(4))
        make_adjacent(self.q_lin, self.k_lin, self.v_lin)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: Tensor, packing: Packing, query_rows: Tensor | None = None, queries: Packing | None = None) -> Tensor:
        draw = self.dropout.draw(queries or packing, self.heads, packing)
        if query_rows is None:
            qkv = joint_linear(x, self.q_lin, self.k_lin, self.v_lin)
            return F.attention(None, qkv, packing=packing, heads=self.heads, draw=draw)
        kv = joint_linear(x, self.k_lin, self.v_lin)
        return F.attention(self.q_lin(query_rows), kv, packing=packing, queries=queries, heads=self.heads, draw=draw)


class DistilBertFeedForward(Module):
    """The two linear layers of the feed-forward block under their published names; the layer calls them."""

    def __init__(self, config: DistilBertConfig) -> None:
        h, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.lin1, self.lin2 = Linear(h, inner, std=std), Linear(inner, h, std=std)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.hidden_act = config.hidden_act


class DistilBertLayer(Module):
    """Attention and feed-forward; with `first_only`, computed only for the first row of each sequence."""

    def __init__(self, config: DistilBertConfig) -> None:
        self.attention = DistilBertAttention(config)
        self.sa_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.ffn = DistilBertFeedForward(config)
        self.output_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, packing: Packing, first_only: bool = False) -> Tensor:
        x, ffn, queries = self._attended(x, packing, first_only), self.ffn, packing.first if first_only else packing
        norm, draw, form = self.output_layer_norm, ffn.dropout.draw(queries, x.shape[1]), GELU_FORMS.get(ffn.hidden_act)
        if form is not None and can_fuse(F.feed_forward, x):
            return feed_forward(x, ffn.lin1, ffn.lin2, norm, form, draw)
        wide = activated(x, ffn.lin1, ffn.hidden_act)
        return F.dense_add_norm(wide, ffn.lin2.weight, ffn.lin2.bias, x, norm.weight, norm.bias, draw=draw, eps=norm.eps)

    def _attended(self, x: Tensor, packing: Packing, first_only: bool) -> Tensor:
        inner, dense, norm, queries = self.attention, self.attention.out_lin, self.sa_layer_norm, packing.first if first_only else packing
        if can_fuse(F.attention_block, x, (inner, DistilBertAttention)):
            draws, qkv = (inner.dropout.draw(queries, inner.heads, packing), None), (inner.q_lin, inner.k_lin, inner.v_lin)
            return attention_block(x, packing, qkv, dense, norm, draws, first_only=first_only, heads=inner.heads)
        if first_only:
            first = F.take_rows(x, packing.first_rows)
            x, mixed = first, inner(x, packing, first, queries)
        else:
            mixed = inner(x, packing)
        return F.dense_add_norm(mixed, dense.weight, dense.bias, x, norm.weight, norm.bias, draw=None, eps=norm.eps)

    def weights(self, x: Tensor, packing: Packing) -> tuple[Tensor, ...]:
        """The attention weights before dropout. Shapes: per sequence (heads, n, n)."""
        return attention_weights(self.attention.q_lin(x), self.attention.k_lin(x), packing, self.attention.heads)


class DistilBertTransformer(Module):
    """The stack of layers."""

    def __init__(self, config: DistilBertConfig) -> None:
        self.layer = [DistilBertLayer(config) for _ in range(config.num_hidden_layers)]

    def forward(self, x: Tensor, packing: Packing, first_only: bool = False, trace: Trace | None = None) -> Tensor:
        """Shapes, arguments: as `run_layers`."""
        return run_layers(self.layer, x, packing, first_only, trace)


class DistilBertPretrained(PretrainedModel):
    """Base of the family's models: the attribute that holds the encoder, the prefix of names in files, and the configuration's class."""

    base_prefix = "distilbert"
    family = "distilbert"
    config_class = DistilBertConfig


class DistilBertModel(DistilBertPretrained):
    """The encoder without a head; its output has no pooler_output.

    Raises: ShapeError, IndexRangeError, ArgumentError for input the model cannot read.
    """

    base_prefix = ""

    def __init__(self, config: DistilBertConfig) -> None:
        self.config = config
        self.embeddings = DistilBertEmbeddings(config)
        self.transformer = DistilBertTransformer(config)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **extras: Unpack[Extras]) -> EncoderOutput:
        encoded = self.encode(input_ids, attention_mask, **extras)
        return EncoderOutput(encoded.repadded(encoded.rows), None, encoded.hidden_states, encoded.attentions)

    def encode(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        first_only: bool = False,
        inputs_embeds: TensorLike | None = None,
        **options: Unpack[OutputOptions],
    ) -> Encoded:
        """The encoder's rows, for a head. first_only: see `run_encoder`."""
        if not self._has_paths:  # called without __call__
            self._set_paths()
        tokens, words = as_tokens(input_ids, attention_mask, None, inputs_embeds, self.config.pad_token_id)
        return run_encoder(self.config, self.transformer, self.embeddings(tokens, words), tokens, first_only, **options)


# ---------------------------------------------------------------- heads on tokens
class DistilBertForMaskedLM(DistilBertPretrained):
    """DistilBERT with a score for every token of the vocabulary at every position.

    The decoder shares the table of word embeddings, unless the configuration unties them. labels, num_items_in_batch, labelled_only, rows,
    Shapes: as BertForMaskedLM. Raises: as DistilBertModel; see `token_labels`.
    """

    def __init__(self, config: DistilBertConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.config = config
        self.distilbert = DistilBertModel(config)
        self.vocab_transform = Linear(h, h, std=std)
        self.vocab_layer_norm = LayerNorm(h, config.layer_norm_eps)
        table: Parameter = self.distilbert.embeddings.word_embeddings.weight
        own = table if config.tie_word_embeddings else init.normal(table.shape, std)
        self.vocab_projector = heads.Decoder(own, init.zeros(config.vocab_size))

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        labels: Any = None,
        *,
        labelled_only: bool = False,
        rows: TensorLike | None = None,
        num_items_in_batch: float | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        encoded = self.distilbert.encode(input_ids, attention_mask, **extras)
        return heads.word_output(encoded, self._scores, labels, self.config.vocab_size, num_items_in_batch, labelled_only, rows)

    def _scores(self, x: Tensor) -> Tensor:
        x = activated(x, self.vocab_transform, self.config.hidden_act)
        return self.vocab_projector(self.vocab_layer_norm(x))  # type: ignore[no-any-return]


class DistilBertForTokenClassification(DistilBertPretrained):
    """DistilBERT with a linear classifier on every token.

    labels, num_items_in_batch: as BertForTokenClassification. Raises: as DistilBertModel; see `token_labels`.
    """

    def __init__(self, config: DistilBertConfig) -> None:
        self.config = config
        self.distilbert = DistilBertModel(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels, std=config.initializer_range)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        labels: Any = None,
        *,
        num_items_in_batch: float | None = None,
        **extras: Unpack[Extras],
    ) -> LogitsOutput:
        encoded = self.distilbert.encode(input_ids, attention_mask, **extras)
        return heads.token_output(encoded, self.classifier(self.dropout(encoded.rows, encoded.tokens.packing)), labels, num_items_in_batch)


class DistilBertForQuestionAnswering(DistilBertPretrained):
    """DistilBERT with two scores for every token: that the answer starts there, and that it ends there.

    start_positions, end_positions: (batch,), token positions in the sequence; see `span_loss`. Raises: as DistilBertModel.
    """

    def __init__(self, config: DistilBertConfig) -> None:
        self.config = config
        self.distilbert = DistilBertModel(config)
        self.dropout = Dropout(config.qa_dropout)
        self.qa_outputs = Linear(config.hidden_size, 2, std=config.initializer_range)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        **extras: Unpack[Extras],
    ) -> QuestionAnsweringOutput:
        encoded = self.distilbert.encode(input_ids, attention_mask, **extras)
        return heads.span_output(
            encoded, self.qa_outputs(self.dropout(encoded.rows, encoded.tokens.packing)), start_positions, end_positions
        )


# ---------------------------------------------------------------- the head on whole sequences
class DistilBertForSequenceClassification(DistilBertPretrained):
    """DistilBERT with a two-layer classifier on the first token; with one label a regression (mean squared error).

    labels: as BertForSequenceClassification. Raises: as DistilBertModel; see `sequence_loss`.
    """

    def __init__(self, config: DistilBertConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.config = config
        self.distilbert = DistilBertModel(config)
        self.pre_classifier = Linear(h, h, std=std)
        self.classifier = Linear(h, config.num_labels, std=std)
        self.dropout = Dropout(config.seq_classif_dropout)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **extras: Unpack[Extras]) -> LogitsOutput:
        encoded = self.distilbert.encode(input_ids, attention_mask, first_only=True, **extras)
        x = self.dropout(F.relu(self.pre_classifier(encoded.first)), encoded.tokens.packing.first)
        return heads.sequence_output(self.config, encoded, self.classifier(x), labels)

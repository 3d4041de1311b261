"""BERT. Devlin et al., arXiv 1810.04805.

Attribute paths are the published ones, so parameter path = state-dict name = the name used to freeze. Inside there are only packed rows:
padded arrays are packed at the border, and every operation computes real tokens alone. A head that reads [CLS] makes the last layer
compute just those rows (its keys and values still need all).
"""

from __future__ import annotations

from typing import Any

from minigrad import functional as F
from minigrad.errors import ArgumentError, IndexRangeError, ShapeError
from minigrad.models.config import BertConfig
from minigrad.models.outputs import ClassifierOutput, EncoderOutput
from minigrad.models.pretrained import PretrainedModel
from minigrad.nn import Dropout, Embedding, LayerNorm, Linear, Module
from minigrad.nn.activation import GELU_FORMS, activation
from minigrad.nn.attention import pad_rows
from minigrad.packing import PackedTokens, Packing, pack
from minigrad.tensor import Tensor, TensorLike


class BertEmbeddings(Module):
    """Word + position + segment embeddings, normalised."""

    def __init__(self, config: BertConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, h, std=std)
        self.position_embeddings = Embedding(config.max_position_embeddings, h, std=std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, h, std=std)
        self.LayerNorm = LayerNorm(h, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.pad_token_id = config.pad_token_id

    def forward(self, tokens: PackedTokens) -> Tensor:
        self._check(tokens)
        words = self.word_embeddings(tokens.input_ids)
        pads = tokens.input_ids == self.pad_token_id
        if pads.any():  # a first token that is padding but read by a pooled head: as in the published model, [PAD] is not trained
            words = F.where(Tensor(pads[:, None], device=words.device), words.detach(), words)
        x = words + self.position_embeddings(tokens.positions) + self.token_type_embeddings(tokens.token_type_ids)
        return self.dropout(self.LayerNorm(x), tokens.packing)  # type: ignore[no-any-return]

    def _check(self, tokens: PackedTokens) -> None:
        longest = self.position_embeddings.weight.shape[0]
        if int(tokens.positions.max()) >= longest:
            row = int((tokens.packing.offsets <= tokens.positions.argmax()).sum()) - 1
            raise ShapeError(
                f"sequence {row} reaches position {int(tokens.positions.max())}, this model has {longest}: "
                f"truncate it (max_length={longest})",
                code="too-long",
            )
        for name, ids, table in (
            ("input_ids", tokens.input_ids, self.word_embeddings),
            ("token_type_ids", tokens.token_type_ids, self.token_type_embeddings),
        ):
            rows = table.weight.shape[0]
            if int(ids.min()) < 0 or int(ids.max()) >= rows:
                bad = int(ids[(ids < 0) | (ids >= rows)][0])
                raise IndexRangeError(f"{name} holds {bad}, this model knows 0..{rows - 1}: was it encoded with this model's tokenizer?")


class BertSelfAttention(Module):
    """Multi-head attention; `queries`, if given, are the only rows whose result is wanted."""

    def __init__(self, config: BertConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = Linear(h, h, std=std), Linear(h, h, std=std), Linear(h, h, std=std)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: Tensor, packing: Packing, asking: Tensor | None = None, queries: Packing | None = None) -> Tensor:
        draw = self.dropout.draw(queries or packing, self.heads, packing)
        if asking is None:
            qkv = _side_by_side(x, self.query, self.key, self.value)
            return F.attention(None, qkv, packing=packing, heads=self.heads, draw=draw)
        kv = _side_by_side(x, self.key, self.value)
        return F.attention(self.query(asking), kv, packing=packing, queries=queries, heads=self.heads, draw=draw)


def _side_by_side(x: Tensor, *layers: Linear) -> Tensor:
    return F.linears(x, *[layer.weight for layer in layers], *[layer.bias for layer in layers])


class BertDenseAddNorm(Module):
    """layer_norm(dropout(dense(x)) + residual). Published as BertSelfOutput and BertOutput."""

    def __init__(self, in_features: int, config: BertConfig) -> None:
        self.dense = Linear(in_features, config.hidden_size, std=config.initializer_range)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor, packing: Packing) -> Tensor:
        norm, draw = self.LayerNorm, self.dropout.draw(packing, residual.shape[1])
        return F.dense_add_norm(x, self.dense.weight, self.dense.bias, residual, norm.weight, norm.bias, draw=draw, eps=norm.eps)


class BertAttention(Module):
    """Self-attention and what follows it, held under the published names; `BertLayer` calls the two."""

    def __init__(self, config: BertConfig) -> None:
        self.self = BertSelfAttention(config)
        self.output = BertDenseAddNorm(config.hidden_size, config)


class BertIntermediate(Module):
    """activation(dense(x)): the wide half of the feed-forward block. Shapes: (rows, hidden) → (rows, intermediate)."""

    def __init__(self, config: BertConfig) -> None:
        self.dense = Linear(config.hidden_size, config.intermediate_size, std=config.initializer_range)
        self.gelu_form = GELU_FORMS.get(config.hidden_act)
        self.activation = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        if self.gelu_form is None:
            return self.activation(self.dense(x))
        return F.dense_gelu(x, self.dense.weight, self.dense.bias, approximate=self.gelu_form)


class BertLayer(Module):
    """Attention and feed-forward; with `first_only`, computed only for the first row of each sequence."""

    def __init__(self, config: BertConfig) -> None:
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertDenseAddNorm(config.intermediate_size, config)

    def forward(self, x: Tensor, packing: Packing, first_only: bool = False) -> Tensor:
        if first_only:
            first = F.take_rows(x, packing.first_rows)
            mixed = self.attention.self(x, packing, first, packing.first)
            x, packing = first, packing.first
        else:
            mixed = self.attention.self(x, packing)
        x = self.attention.output(mixed, x, packing)
        return self.output(self.intermediate(x), x, packing)  # type: ignore[no-any-return]


class BertEncoder(Module):
    """The stack of layers."""

    def __init__(self, config: BertConfig) -> None:
        self.layer = [BertLayer(config) for _ in range(config.num_hidden_layers)]

    def forward(self, x: Tensor, packing: Packing, first_only: bool = False) -> Tensor:
        """Shapes: x (rows, hidden) → the same, or (sequences, hidden) with first_only."""
        for layer in self.layer[:-1]:
            x = layer(x, packing)
        if self.layer:
            return self.layer[-1](x, packing, first_only)  # type: ignore[no-any-return]
        return F.take_rows(x, packing.first_rows) if first_only else x


class BertPooler(Module):
    """tanh(dense([CLS]))."""

    def __init__(self, config: BertConfig) -> None:
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)

    def forward(self, first: Tensor) -> Tensor:
        return F.tanh(self.dense(first))


class BertModel(PretrainedModel):
    """The encoder without a head.

    Called with padded arrays (input_ids, attention_mask, token_type_ids, all (batch, longest); NumPy or Tensor) or with one PackedTokens.
    Raises: ShapeError, IndexRangeError, ArgumentError for input the model cannot read.
    """

    base_prefix = ""

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None

    def forward(self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> EncoderOutput:
        tokens = as_tokens(input_ids, attention_mask, token_type_ids)
        x = self.encoder(self.embeddings(tokens), tokens.packing)
        pooled = None if self.pooler is None else self.pooler(F.take_rows(x, tokens.packing.first_rows))
        return EncoderOutput(x if tokens.padded_shape is None else pad_rows(x, tokens), pooled)

    def pooled(self, tokens: PackedTokens) -> Tensor:
        """The pooled [CLS] alone: the last layer computes no other row. Shapes: → (sequences, hidden)."""
        if self.pooler is None:
            raise ArgumentError("this BertModel was built without a pooling layer")
        if not self._knows_paths:  # called past __call__
            self._name()
        return self.pooler(self.encoder(self.embeddings(tokens), tokens.packing, first_only=True))  # type: ignore[no-any-return]


class BertForSequenceClassification(PretrainedModel):
    """BERT with a linear classifier on the pooled [CLS]; with one label a regression (mean squared error).

    Called like BertModel, plus labels: (batch,) integers (cross-entropy, -100 ignored), or for a regression floats of the logits' shape,
    (batch,) where there is one label. Raises: as BertModel; see `loss`.
    """

    base_prefix = "bert"
    head = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        self.bert = BertModel(config)
        rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = Dropout(rate)
        self.classifier = Linear(config.hidden_size, config.num_labels, std=config.initializer_range)

    def forward(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, labels: TensorLike | None = None
    ) -> ClassifierOutput:
        tokens = as_tokens(input_ids, attention_mask, token_type_ids)
        pooled = self.dropout(self.bert.pooled(tokens), tokens.packing.first)
        logits = self.classifier(pooled)
        return ClassifierOutput(logits, None if labels is None else self.loss(logits, labels))

    def loss(self, logits: Tensor, labels: TensorLike) -> Tensor:
        """The loss that `problem_type` (or, if unset, the number of labels) asks for.

        Raises: ArgumentError for integer labels where the number of labels alone makes it a regression: classes with one name are more
        likely a mistake in the data; ShapeError for labels of another shape.
        """
        kind = self.config.problem_type
        if kind != "regression" and (kind is not None or self.config.num_labels > 1):
            return F.cross_entropy(logits, labels)
        if kind is None and (labels if isinstance(labels, Tensor) else Tensor(labels)).dtype.kind != "f":
            raise ArgumentError(
                "this model has one label, which makes it a regression, but the labels are integers: for a regression pass floats or set "
                'problem_type="regression"; for classes the configuration needs two labels or more'
            )
        wanted = Tensor(labels, dtype=logits.dtype, device=logits.device)
        if wanted.shape != logits.shape and not (logits.shape[1] == 1 and wanted.shape == logits.shape[:1]):
            raise ShapeError(f"the labels of a regression have shape {wanted.shape}, the logits {logits.shape}: they must be equal")
        return F.mse_loss(logits, wanted.reshape(logits.shape))


def as_tokens(input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> PackedTokens:
    """Packed tokens from whatever a caller brought.

    Raises: ArgumentError if packed tokens come with a mask or types of their own; otherwise as `pack`.
    """
    if isinstance(input_ids, PackedTokens):
        if attention_mask is not None or token_type_ids is not None:
            raise ArgumentError(
                "PackedTokens carry their own structure and token types: pass no attention_mask or token_type_ids beside them"
            )
        return input_ids
    return pack(input_ids, attention_mask, token_type_ids)

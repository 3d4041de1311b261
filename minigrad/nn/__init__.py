"""Layers: they own parameters and call `functional`, nothing more."""

from minigrad.nn import init
from minigrad.nn.activation import GELU, ReLU, Tanh
from minigrad.nn.attention import MultiHeadAttention
from minigrad.nn.basic import Dropout, Embedding, LayerNorm, Linear, Sequential
from minigrad.nn.losses import CrossEntropyLoss, MSELoss
from minigrad.nn.module import Module
from minigrad.nn.transformer import TransformerEncoder, TransformerEncoderLayer
from minigrad.parameter import Parameter

__all__ = [
    "GELU", "CrossEntropyLoss", "Dropout", "Embedding", "LayerNorm", "Linear", "MSELoss", "Module", "MultiHeadAttention", "Parameter",
    "ReLU", "Sequential", "Tanh", "TransformerEncoder", "TransformerEncoderLayer", "init",
]  # fmt: skip

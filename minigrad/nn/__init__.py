"""Layers: they own parameters and call `functional`, nothing more."""

from minigrad.nn import init
from minigrad.nn.activation import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from minigrad.nn.attention import MultiHeadAttention
from minigrad.nn.basic import Dropout, Embedding, Flatten, Identity, Linear, Sequential
from minigrad.nn.conv import AvgPool1d, AvgPool2d, Conv1d, Conv2d, MaxPool1d, MaxPool2d
from minigrad.nn.losses import (
    BCEWithLogitsLoss,
    CosineSimilarity,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from minigrad.nn.module import Module
from minigrad.nn.normalisation import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm
from minigrad.nn.recurrent import GRU, LSTM, RNN
from minigrad.nn.transformer import TransformerDecoder, TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer
from minigrad.parameter import Buffer, Parameter

__all__ = [
    "GELU", "GRU", "LSTM", "RNN", "AvgPool1d", "AvgPool2d", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "Buffer", "Conv1d", "Conv2d",
    "CosineSimilarity", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "GroupNorm", "HuberLoss", "Identity", "KLDivLoss", "L1Loss",
    "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "MSELoss", "MaxPool1d", "MaxPool2d", "Module", "MultiHeadAttention", "NLLLoss",
    "Parameter", "RMSNorm", "ReLU", "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Softplus", "Tanh", "TransformerDecoder",
    "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer", "init",
]  # fmt: skip

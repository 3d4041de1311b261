"""From files of text to packed batches: readers, tokenization, loading."""

from minigrad.data.by_length import batches_by_length
from minigrad.data.loader import Batch, PackedLoader
from minigrad.data.readers import LabelMap, Record, read_records
from minigrad.data.tokenization import Encoding, Tokenizer
from minigrad.packing import PackedTokens, Packing, pack

__all__ = [
    "Batch", "Encoding", "LabelMap", "PackedLoader", "PackedTokens", "Packing", "Record", "Tokenizer", "batches_by_length", "pack",
    "read_records",
]  # fmt: skip

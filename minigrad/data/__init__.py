"""From files of text to packed batches: readers, tokenization, loading."""

from minigrad.data.loader import Batch, PackedLoader
from minigrad.data.readers import LabelMap, Record, read_records
from minigrad.data.tokenization import Encoding, Tokenizer
from minigrad.packing import PackedTokens, Packing, pack

__all__ = ["Batch", "Encoding", "LabelMap", "PackedLoader", "PackedTokens", "Packing", "Record", "Tokenizer", "pack", "read_records"]

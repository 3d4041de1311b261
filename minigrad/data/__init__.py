"""From files of text to packed batches: readers, tokenization, alignment of labels, splitting, loading."""

from minigrad.data.alignment import encode_words, entities_of, join_words, token_labels
from minigrad.data.by_length import batches_by_length
from minigrad.data.loader import Batch, PackedLoader
from minigrad.data.readers import iter_records, read_records, records_from
from minigrad.data.records import Entity, LabelMap, Record, numbers
from minigrad.data.split import split_records
from minigrad.data.tokenization import Encoding, Tokenizer
from minigrad.data.writers import write_records
from minigrad.packing import PackedTokens, Packing, pack

__all__ = [
    "Batch", "Encoding", "Entity", "LabelMap", "PackedLoader", "PackedTokens", "Packing", "Record", "Tokenizer", "batches_by_length",
    "encode_words", "entities_of", "iter_records", "join_words", "numbers", "pack", "read_records", "records_from", "split_records",
    "token_labels", "write_records",
]  # fmt: skip

"""The readers under fuzzing: for each, what it starts from, how its files are changed, and how one is read.

A target reads an input from a scratch folder. It returns for a file that it can use and raises one of its errors for any other;
whatever else happens is an escape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import checkpoints, corpus
from fuzz.data_mutations import cells, json_lines
from fuzz.json_mutations import json_text, safetensors
from fuzz.mutations import Mutation, bytewise, folder, lines, unpacked
from fuzz.table_mutations import sstable
from fuzz.torch_mutations import torch_zip

import minigrad as mg
from minigrad.data.readers import iter_records, read_records
from minigrad.errors import CheckpointError, ConfigError, DataError, FileFormatError, TokenizerError, WeightFileError
from minigrad.io import SafetensorsFile
from minigrad.io.tf_checkpoint import TensorFlowCheckpoint
from minigrad.io.torch_zip import TorchZipFile
from minigrad.io.weights import open_weights
from minigrad.models.sentence import read_settings


@dataclass(frozen=True)
class Target:
    """`prepare` fills the scratch folder once, `place` puts an input there, `read` reads it."""

    seeds: Callable[[], list[bytes]]
    mutate: Mutation
    place: Callable[[bytes, Path], None]
    read: Callable[[Path], object]
    errors: tuple[type[FileFormatError], ...]
    prepare: Callable[[Path], None] = lambda scratch: None


def _one(name: str) -> Callable[[bytes, Path], None]:
    return lambda data, scratch: _put(scratch / name, data)


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _several(names: Sequence[str]) -> Callable[[bytes, Path], None]:
    def place(data: bytes, scratch: Path) -> None:
        files = unpacked(data, names)
        for name in names:
            if name in files:
                (scratch / name).write_bytes(files[name])
            else:
                (scratch / name).unlink(missing_ok=True)

    return place


def _read_all(source: Any) -> None:
    """Every tensor, in the dtype of the reader and for floats in float64, as models read them."""
    with source:
        for name in source.names():
            shape, dtype = source.shape(name), source.dtype(name)
            found = source.read(name)
            if found.shape != shape or found.dtype != dtype or not found.flags.c_contiguous:
                raise AssertionError(f"{name!r}: said to be {shape} {dtype}, read as {found.shape} {found.dtype}")
            if dtype.kind == "f":
                source.read_into(name, np.empty(shape, np.float64))


SHARDS = ["model.safetensors.index.json", *(f"model-{i:05d}-of-{n:05d}.safetensors" for n in (2, 3) for i in range(1, n + 1))]
TABLES = ["model.ckpt.index", *(f"model.ckpt.data-{i:05d}-of-{n:05d}" for n in (1, 2) for i in range(n))]
TOKENIZER = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
]
SETTINGS = ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"]
TEXTS = ["The pumps are leaking.", "", " the café's\tpump\n中文 👍 [MASK] <mask> ##s", "a" * 300, "e\u0301\u200b\u00a0\ufdfa"]


def _read_config(scratch: Path) -> None:
    """The whole way to a model: sizes must be held against the weights before memory is taken."""
    model = mg.models.load(scratch, "sequence-classification")
    model.config.to_text(type(model).__name__)


def _read_settings(scratch: Path) -> None:
    stated = (scratch / SETTINGS[0]).exists()
    read_settings(scratch, pooling=None if stated else "mean", normalise=None if stated else True)


def _read_tokenizer(scratch: Path) -> None:
    tokenizer = mg.data.Tokenizer.from_pretrained(scratch)
    encodings = tokenizer.encode(TEXTS, max_length=40) + tokenizer.encode(TEXTS[:1], pairs=TEXTS[2:3])
    for encoding in encodings:
        if len(encoding) and not 0 <= encoding.ids.min() <= encoding.ids.max() < tokenizer.vocab_size:
            raise AssertionError(f"an id outside of the {tokenizer.vocab_size} of the vocabulary: {encoding.ids}")
        tokenizer.decode(encoding.ids)


ENCODINGS = ("utf-8", "utf-7", "shift_jis")
"""Beside UTF-8 one that can spell half a surrogate pair, and one whose second byte may be a quotation mark's."""


def _read_data(path: Path) -> None:
    """Every record that can be used, in any encoding; then strictly, where the first that cannot be used is the error."""
    for encoding in ENCODINGS:
        skipped: list[DataError] = []
        with suppress(DataError):
            for record in iter_records(path, encoding=encoding, skipped=skipped, max_skipped=10_000):
                record.text.encode("utf-8")
                for entity in record.entities or ():
                    if not 0 <= entity.start < entity.end <= len(record.text):
                        raise AssertionError(f"an entity outside of its text: {entity}")
        if wrong := [error for error in skipped if str(path) not in str(error) or error.line is None]:
            raise AssertionError(f"a row is skipped without path and line: {wrong[0]}")
    read_records(path)


def _data(seeds: Callable[[], list[bytes]], mutate: Mutation, suffix: str) -> Target:
    name = f"data{suffix}"
    return Target(seeds, mutate, _one(name), lambda scratch: _read_data(scratch / name), (DataError,))


TARGETS: dict[str, Target] = {
    "safetensors": Target(
        corpus.safetensors,
        safetensors,
        _one("model.safetensors"),
        lambda scratch: _read_all(SafetensorsFile(scratch / "model.safetensors")),
        (WeightFileError,),
    ),
    "torch": Target(
        corpus.torch_zip,
        torch_zip,
        _one("pytorch_model.bin"),
        lambda scratch: _read_all(TorchZipFile(scratch / "pytorch_model.bin")),
        (WeightFileError,),
    ),
    "shards": Target(
        corpus.shard_index,
        folder(SHARDS, {SHARDS[0]: json_text, **dict.fromkeys(SHARDS[1:], safetensors)}),
        _several(SHARDS),
        lambda scratch: _read_all(open_weights(scratch)),
        (WeightFileError,),
    ),
    "tensorflow": Target(
        corpus.tf_index,
        folder(TABLES, {TABLES[0]: sstable, **dict.fromkeys(TABLES[1:], bytewise)}),
        _several(TABLES),
        lambda scratch: _read_all(TensorFlowCheckpoint(scratch / TABLES[0])),
        (WeightFileError,),
    ),
    **{
        "config" if family == "bert" else f"config-{family}": Target(
            partial(corpus.config, family),
            json_text,
            _one("config.json"),
            _read_config,
            (ConfigError, WeightFileError),
            partial(corpus.write_tiny_model, family=family),
        )
        for family in corpus.FAMILIES
    },
    "sentences": Target(
        corpus.sentences,
        folder(SETTINGS, dict.fromkeys(SETTINGS, json_text)),
        _several(SETTINGS),
        _read_settings,
        (ConfigError,),
        lambda scratch: (scratch / "1_Pooling").mkdir(),
    ),
    "tokenizer": Target(
        corpus.tokenizer,
        folder(TOKENIZER, dict.fromkeys(TOKENIZER, json_text) | {"vocab.txt": lines, "merges.txt": lines}),
        _several(TOKENIZER),
        _read_tokenizer,
        (TokenizerError,),
    ),
    "csv": _data(partial(corpus.table, ","), cells(b","), ".csv"),
    "tsv": _data(partial(corpus.table, "\t"), cells(b"\t"), ".tsv"),
    "jsonl": _data(corpus.json_records, json_lines, ".jsonl"),
    "conll": _data(corpus.conll, cells(b" "), ".conll"),
    "label-studio": _data(corpus.label_studio, json_text, ".json"),
    "checkpoint": Target(
        checkpoints.checkpoint,
        checkpoints.mutate,
        lambda data, scratch: _several(checkpoints.FILES)(data, scratch / checkpoints.STEP),
        checkpoints.read,
        (CheckpointError, WeightFileError),
        lambda scratch: (scratch / checkpoints.STEP).mkdir(),
    ),
}

"""Text to token ids: BERT's WordPiece tokenizer, run by the `tokenizers` library, from and to the files that model directories hold.

The library's object carries truncation and padding as state, which is easy to leave switched on by accident. Here
truncation is an argument, padding does not exist (batches are packed), and what comes back is plain NumPy arrays.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minigrad.data._tokenizer_files import Settings, load
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError, TokenizerError
from minigrad.files import quoted, surrogate_at, write_text
from minigrad.packing import host_array

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """One tokenized text, or pair of texts, of n tokens with [CLS] and [SEP].

    `offsets[i]` are the first and the past-the-end character of token i in its text, `word_ids[i]` is the number of its
    word in its text (words as BERT splits them: at spaces and around punctuation); special tokens have (0, 0) and -1.
    `type_ids` are 0 for the first text and 1 for the second. `truncated` says whether tokens were cut off.

    Shapes: ids, type_ids, word_ids (n,); offsets (n, 2)
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    word_ids: NDArray[np.int64]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """BERT's WordPiece tokenizer. Make one by `Tokenizer.from_pretrained(directory)`.

    A special token that is spelled out in a text, such as `[SEP]`, becomes that special token, as in transformers.
    Several threads may share one tokenizer.

    Source: Devlin et al. 2019, "BERT"; Wu et al. 2016, section 4.1, for WordPiece.
    """

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(self, backend: tokenizers.Tokenizer, settings: Settings) -> None:
        self._backend = backend
        self._settings = settings
        self._lock = threading.Lock()  # the truncation is state of the backend
        for role, token in settings.special_tokens.items():
            setattr(self, role.removesuffix("_token") + "_id", backend.token_to_id(token))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Tokenizer:
        """Read tokenizer.json, or vocab.txt where there is none; tokenizer_config.json, if present, sets letter case and the like.

        Truncation and padding stored in tokenizer.json are not taken over.

        Raises:
            TokenizerError: a file is missing, broken, or describes a tokenizer that is not BERT's.
            ArgumentError: `directory` is no path.
        """
        try:
            path = Path(directory)
        except TypeError as error:
            message = f"directory must be the path of a directory with tokenizer.json or vocab.txt, got {quoted(directory)}"
            raise ArgumentError(message) from error
        return cls(*load(path))

    @property
    def vocab_size(self) -> int:
        """The number of ids: every id is below it."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Iterable[str], *, max_length: int | None = None, pairs: Iterable[str] | None = None) -> list[Encoding]:
        """Tokenize each text as `[CLS] text [SEP]`, or with `pairs` as `[CLS] text [SEP] pair [SEP]`.

        `max_length` counts all tokens of an encoding. Tokens beyond it are cut from the end of the text, for a pair from
        the end of the longer one until both are of equal length, then from both.

        Raises:
            DTypeError: `texts` or `pairs` is a single string, or holds something else than strings.
            ArgumentError: they differ in length, a text holds half a surrogate pair, or `max_length` is no integer, above 2**31 - 1,
                or leaves no room for text.
        """
        first = _checked_texts("texts", texts)
        inputs: list[str] | list[tuple[str, str]] = first
        if pairs is not None:
            second = _checked_texts("pairs", pairs)
            if len(second) != len(first):
                raise ArgumentError(f"texts and pairs must have equal lengths, got {len(first)} and {len(second)}")
            inputs = list(zip(first, second, strict=True))
        special = self._backend.num_special_tokens_to_add(is_pair=pairs is not None)
        if max_length is not None and not (isinstance(max_length, Integral) and special < max_length < 2**31):
            raise ArgumentError(
                f"max_length must be an integer of at least {special + 1} ({special} special tokens and some text) and at most 2**31 - 1, "
                f"got {quoted(max_length)}"
            )
        with self._lock:
            if max_length is None:
                self._backend.no_truncation()
            else:
                self._backend.enable_truncation(max_length, strategy="longest_first")
            encodings = self._backend.encode_batch(inputs)
        return [_to_arrays(encoding) for encoding in encodings]

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of `ids`, as far as WordPiece keeps it: special tokens are left out, spacing and lost letter case stay lost.

        Raises:
            DTypeError, ShapeError: `ids` is no row of integers.
            IndexRangeError: an id is not in the vocabulary.
        """
        row = host_array("ids", ids)
        if row.ndim != 1:
            raise ShapeError(f"ids must be the ids of one text, got the shape {row.shape}; decode one text at a time")
        numbers = row.tolist()
        for position, number in enumerate(numbers):
            if not 0 <= number < self.vocab_size:
                raise IndexRangeError(f"token id {number} at position {position} is outside the vocabulary of {self.vocab_size} tokens")
        return self._backend.decode(numbers, skip_special_tokens=True)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json, each whole or not at all.

        Raises:
            TokenizerError: a file cannot be written.
        """
        directory = Path(directory)
        with self._lock:
            self._backend.no_truncation()
            description = self._backend.to_str(pretty=True)
        vocab = self._backend.get_vocab(with_added_tokens=True)
        settings = self._settings
        config: dict[str, object] = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": settings.do_lower_case,
            "strip_accents": settings.strip_accents,
            "tokenize_chinese_chars": settings.tokenize_chinese_chars,
            **settings.special_tokens,
        }
        if settings.model_max_length is not None:
            config["model_max_length"] = settings.model_max_length
        files = {
            "tokenizer.json": description,
            "vocab.txt": "".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)),
            "tokenizer_config.json": _json_text(config),
            "special_tokens_map.json": _json_text(settings.special_tokens),
        }
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                write_text(directory / name, text)
        except OSError as error:
            raise TokenizerError(directory, f"cannot be written: {error}", code="write-failed") from error


def _checked_texts(name: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise DTypeError(f"{name} must be a sequence of strings, got one string; put it into a list")
    if not isinstance(texts, Iterable):
        raise DTypeError(f"{name} must be a sequence of strings, got {type(texts).__name__}")
    checked = list(texts)  # first of all: a generator can be read only once
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise DTypeError(f"{name}[{position}] must be a string, got {type(text).__name__}")
        if (at := surrogate_at(text)) is not None:
            raise ArgumentError(f"{name}[{position}] holds half a surrogate pair at character {at}")
    return checked


def _to_arrays(encoding: tokenizers.Encoding) -> Encoding:
    return Encoding(
        ids=np.array(encoding.ids, dtype=np.int64),
        type_ids=np.array(encoding.type_ids, dtype=np.int64),
        offsets=np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
        word_ids=np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64),
        truncated=bool(encoding.overflowing),
    )


def _json_text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

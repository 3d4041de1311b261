"""Text to token ids: the tokenizers of BERT, RoBERTa, XLM-R and related models, run by the `tokenizers` library, in model directories.

The library's tokenizer keeps truncation and padding as state, which is easily left switched on by accident. Here truncation is an argument,
there is no padding (batches are packed), and results are plain NumPy arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data._tokenizer_config import ROLES, TOKENIZER_FILES, Settings
from minigrad.data._tokenizer_files import load
from minigrad.data._tokenizer_saving import files_of
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError, TokenizerError
from minigrad.files import as_path, quoted, surrogate_at, write_text
from minigrad.packing import host_array

if TYPE_CHECKING:
    import tokenizers

__all__ = ["TOKENIZER_FILES", "TRUNCATIONS", "Encoding", "Tokenizer", "checked_texts"]

CHUNK_TEXTS = 1024
CHUNK_CHARACTERS = 1 << 20
"""Texts, and characters of texts, that are encoded at once: the library's own data for a text is many times its size."""
TRUNCATIONS = ("longest_first", "only_first", "only_second")


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """A tokenized text, or pair of texts, of n tokens, special ones included.

    `offsets[i]` are the first and the past-the-end character of token i in the original text. `word_ids[i]` is the number of its word in
    its text, and `sequence_ids[i]` is that of the text: 0 or 1. The special tokens around the texts have (0, 0), -1 and -1. What a word is
    depends on the family: BERT splits at spaces and around punctuation, RoBERTa before a space and between letters, digits and others,
    XLM-R at spaces. `type_ids` are the model's token types: BERT has 0 for the first text and 1 for the second, RoBERTa and XLM-R have 0.
    `truncated` says whether tokens were cut off.

    Shapes: ids, type_ids, word_ids, sequence_ids, special_tokens_mask (n,); offsets (n, 2)
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    word_ids: NDArray[np.int64]
    sequence_ids: NDArray[np.int64]
    truncated: bool

    @property
    def special_tokens_mask(self) -> NDArray[np.bool_]:
        """True for the special tokens around the texts. A special token spelled out in a text counts as text."""
        return self.sequence_ids < 0

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """The tokenizer of a BERT-like model: WordPiece, byte-level BPE (RoBERTa) or Unigram (XLM-R).

    Create one with `Tokenizer.from_pretrained(directory)`.
    A special token that is spelled out in a text, such as `[SEP]`, becomes that special token, as in transformers.
    `bos_id` and `eos_id` are None if the family has no such tokens, `model_max_length` if the files state none.
    Several threads may share one tokenizer.

    Source: Devlin et al. 2019, "BERT"; Wu et al. 2016, section 4.1, for WordPiece; Radford et al. 2019, section 2.2, for byte-level BPE;
    Kudo 2018, "Subword regularization", for Unigram.
    """

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    bos_id: int | None
    eos_id: int | None

    def __init__(self, backend: tokenizers.Tokenizer, settings: Settings) -> None:
        self._backend = backend
        self._settings = settings
        self._lock = threading.Lock()  # truncation is state of the backend
        for role in ROLES:
            token = settings.special_tokens.get(role)
            setattr(self, role.removesuffix("_token") + "_id", None if token is None else backend.token_to_id(token))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Tokenizer:
        """Read tokenizer.json, else vocab.txt, else vocab.json and merges.txt.

        tokenizer_config.json, special_tokens_map.json and added_tokens.json, if present, set letter case, special and added tokens, the
        side of truncation and the like. Truncation and padding stored in tokenizer.json are ignored.

        Raises:
            TokenizerError: a file is missing, broken, or describes a tokenizer of another family.
            ArgumentError: `directory` is not a path.
        """
        return cls(*load(as_path(directory)))

    @property
    def vocab_size(self) -> int:
        """The number of ids: every id is below it."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def model_max_length(self) -> int | None:
        """The model's maximum number of tokens, as stated in tokenizer_config.json, or None."""
        return self._settings.model_max_length

    @property
    def kind(self) -> str:
        """How words become tokens: "WordPiece" (BERT), "BPE" (RoBERTa) or "Unigram" (XLM-R)."""
        return type(self._backend.model).__name__

    def encode(
        self,
        texts: Iterable[str],
        *,
        max_length: int | None = None,
        pairs: Iterable[str] | None = None,
        truncation: str = "longest_first",
    ) -> list[Encoding]:
        """Tokenize each text as `[CLS] text [SEP]`, or with `pairs` as `[CLS] text [SEP] pair [SEP]`.

        RoBERTa and XLM-R write `<s> text </s>` and `<s> text </s></s> pair </s>`.
        `max_length` counts all tokens of an encoding. Tokens beyond it are cut from the end of the text (from its start if
        tokenizer_config.json says truncation_side "left"). For a pair, "longest_first" cuts the longer text until both are of equal length,
        then both; "only_first" and "only_second" cut only that one.

        Raises:
            DTypeError: `texts` or `pairs` is a single string, or holds something else than strings.
            ArgumentError: they differ in length, or a text holds a lone surrogate; `max_length` is not an integer, is above 2**31 - 1, or
                leaves no room for text; `truncation` is unknown, or the text that it cuts is too short.
        """
        first = checked_texts("texts", texts)
        inputs: list[str] | list[tuple[str, str]] = first
        if pairs is not None:
            second = checked_texts("pairs", pairs)
            if len(second) != len(first):
                raise ArgumentError(f"texts and pairs must have equal lengths, got {len(first)} and {len(second)}")
            inputs = list(zip(first, second, strict=True))
        special = self._backend.num_special_tokens_to_add(is_pair=pairs is not None)
        if max_length is not None and not (isinstance(max_length, Integral) and special < max_length < 2**31):
            raise ArgumentError(
                f"max_length must be an integer of at least {special + 1} ({special} special tokens and some text) and at most 2**31 - 1, "
                f"got {quoted(max_length)}"
            )
        if truncation not in TRUNCATIONS or (truncation == "only_second" and pairs is None):
            raise ArgumentError(f"truncation must be one of {', '.join(TRUNCATIONS)}, the last with pairs only, got {quoted(truncation)}")
        with self._lock:
            if max_length is None:
                self._backend.no_truncation()
            else:
                self._backend.enable_truncation(max_length, strategy=truncation, direction=self._settings.truncation_side)
            try:
                return [_to_arrays(encoding) for chunk in _chunks(inputs) for encoding in self._backend.encode_batch(chunk)]
            except Exception as error:  # the library raises bare Exceptions; with checked texts this is the only cause
                message = (
                    f"truncation {quoted(truncation)} cannot bring every pair to max_length {max_length}: the text to cut is too short"
                )
                raise ArgumentError(message) from error

    def decode(
        self, ids: Sequence[int] | NDArray[np.integer], *, skip_special_tokens: bool = True, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """The text of `ids`. Letter case and spacing that the tokens lost are not restored.

        `clean_up_tokenization_spaces` joins the English contractions that BERT took apart, as the option of that name in transformers does
        ("don ' t" becomes "don't"); byte-level BPE keeps spaces, so its texts are left as they are.

        Raises:
            DTypeError, ShapeError: `ids` is not a row of integers.
            IndexRangeError: an id is not in the vocabulary.
        """
        how = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": clean_up_tokenization_spaces}
        return self.decode_batch([ids], **how)[0]

    def decode_batch(
        self,
        rows: Iterable[Sequence[int] | NDArray[np.integer]],
        *,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool = False,
    ) -> list[str]:
        """The text of each row of ids, as `decode` gives it."""
        texts = self._backend.decode_batch([self._checked_ids(row) for row in rows], skip_special_tokens=skip_special_tokens)
        if clean_up_tokenization_spaces and self.kind != "BPE":
            texts = [_cleaned_up(text) for text in texts]
        return texts

    def convert_ids_to_tokens(self, ids: Sequence[int] | NDArray[np.integer]) -> list[str]:
        """The vocabulary's own spelling of each token, such as `##ing`.

        Raises: as `decode`.
        """
        return [str(self._backend.id_to_token(number)) for number in self._checked_ids(ids)]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text that tokens in the vocabulary's spelling stand for, special ones included."""
        return str(self._backend.decoder.decode(list(tokens)))

    def _checked_ids(self, ids: Sequence[int] | NDArray[np.integer]) -> list[int]:
        row = host_array("ids", ids)
        if row.ndim != 1:
            raise ShapeError(
                f"ids must be the ids of one text, got the shape {row.shape}; decode one text at a time, or rows by decode_batch"
            )
        size = self.vocab_size
        numbers: list[int] = row.tolist()
        for position, number in enumerate(numbers):
            if not 0 <= number < size:
                raise IndexRangeError(f"token id {number} at position {position} is outside the vocabulary of {size} tokens")
        return numbers

    def token_to_id(self, token: str) -> int | None:
        """The id of a token in the vocabulary's own spelling; None if the vocabulary has no such token."""
        number: int | None = self._backend.token_to_id(token)
        return number

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json, and vocab.txt or vocab.json with merges.txt.

        Each file appears whole or not at all. A Unigram vocabulary is written to tokenizer.json only.

        Raises:
            TokenizerError: a file cannot be written.
            ArgumentError: `directory` is not a path.
        """
        directory = as_path(directory)
        with self._lock:
            self._backend.no_truncation()
            description = self._backend.to_str()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, text in files_of(description, self._settings).items():
                write_text(directory / name, text)
        except OSError as error:
            raise TokenizerError(directory, f"cannot be written: {error}", code="write-failed") from error


# " ' " becomes "'", and so on, in this order.
_CONTRACTIONS = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def _cleaned_up(text: str) -> str:
    for contraction in _CONTRACTIONS:
        text = text.replace(contraction, contraction.strip())
    return text


def checked_texts(name: str, texts: Iterable[str], first: int = 0) -> list[str]:
    """`texts` as a list of checked strings, which messages number from `first`. Raises: as `Tokenizer.encode`."""
    if isinstance(texts, str):
        raise DTypeError(f"{name} must be a sequence of strings, got one string; put it into a list")
    if not isinstance(texts, Iterable):
        raise DTypeError(f"{name} must be a sequence of strings, got {type(texts).__name__}")
    checked = list(texts)  # before the checks: a generator can be read only once
    for position, text in enumerate(checked, first):
        if not isinstance(text, str):
            raise DTypeError(f"{name}[{position}] must be a string, got {type(text).__name__}")
        if (at := surrogate_at(text)) is not None:
            raise ArgumentError(f"{name}[{position}] holds half a surrogate pair at character {at}")
    return checked


def _chunks(inputs: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The texts (or pairs) in chunks that are encoded at once; a longer text is a chunk of its own."""
    start = characters = 0
    for i, given in enumerate(inputs):
        own = len(given) if isinstance(given, str) else sum(map(len, given))
        if i > start and (i - start == CHUNK_TEXTS or characters + own > CHUNK_CHARACTERS):
            yield inputs[start:i]
            start, characters = i, 0
        characters += own
    if inputs:
        yield inputs[start:]


def _to_arrays(encoding: tokenizers.Encoding) -> Encoding:
    return Encoding(
        ids=np.array(encoding.ids, dtype=np.int64),
        type_ids=np.array(encoding.type_ids, dtype=np.int64),
        offsets=np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
        word_ids=np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64),
        sequence_ids=np.array([-1 if text is None else text for text in encoding.sequence_ids], dtype=np.int64),
        truncated=bool(encoding.overflowing),
    )

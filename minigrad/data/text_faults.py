"""Faults in texts that can be read: traces of a wrong encoding, invisible characters, spans that cut words.

A tokenizer accepts all of these silently, and the model sees another text than a person looking at the file. None is proof of an error, so
they are reported and never refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from minigrad.data.records import Entity, Record

FAULTS = {
    "mojibake": "UTF-8 that was read as Latin-1 or Windows-1252, such as Ã© for é",
    "replacement-character": "U+FFFD, which stands where a character was lost",
    "control-character": "characters that control a terminal, other than tab and line ends",
    "zero-width-character": "characters without width, such as the zero-width space",
    "mixed-normal-forms": "letters written as letter and accent (NFD), in data that also has them as one character (NFC)",
    "span-off-words": "entity spans that begin or end inside a word or with white space",
}
"""What each kind means."""

# How Windows-1252 shows the bytes 0x80 to 0xBF, which continue a UTF-8 character; Latin-1 shows U+0080 to U+00BF.
_CONTINUATION = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_PATTERNS = {
    # After a capital letter, Ã and Â before a quotation mark may be intended: «IRMÃ».
    "mojibake": re.compile(f"(?<![A-ZÀ-Þ])[ÂÃ]{_CONTINUATION}|[âï]{_CONTINUATION}{{2}}|ð{_CONTINUATION}{{3}}"),
    "replacement-character": re.compile("\ufffd"),
    "control-character": re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    # Persian, the scripts of India and emoji need joiners; between Latin letters they are a fault.
    "zero-width-character": re.compile("[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]|(?<=[A-Za-z])[\u200c\u200d](?=[A-Za-z])"),
}


def faults_of(text: str) -> Iterator[str]:
    """The kinds of fault in `text`, each once. "mixed-normal-forms" is given for any text that is not in NFC."""
    if text.isascii():
        if _PATTERNS["control-character"].search(text):
            yield "control-character"
        return
    for kind, pattern in _PATTERNS.items():
        if pattern.search(text):
            yield kind
    if not unicodedata.is_normalized("NFC", text):
        yield "mixed-normal-forms"


def has_composed_letters(text: str) -> bool:
    """Whether NFD would write a letter of `text` as several characters."""
    return not text.isascii() and not unicodedata.is_normalized("NFD", text)


def spans_off_words(record: Record) -> Iterator[Entity]:
    """The entities of a record that do not begin and end at word boundaries.

    Words are the file's own, if it has any. Otherwise a span is off if the characters on both sides of a border belong to a word (letters
    of a script with capitals, digits or accents), or if white space is its first or last character.
    """
    if not record.entities:
        return
    starts, ends = (set(places) for places in zip(*record.words, strict=True)) if record.words else (None, None)
    for entity in record.entities:
        if starts is not None and ends is not None:
            off = entity.start not in starts or entity.end not in ends
        else:
            span = record.text[entity.start : entity.end]
            off = span != span.strip() or _inside_word(record.text, entity.start) or _inside_word(record.text, entity.end)
        if off:
            yield entity


def _inside_word(text: str, place: int) -> bool:
    return 0 < place < len(text) and _is_word_character(text[place - 1]) and _is_word_character(text[place])


def _is_word_character(letter: str) -> bool:
    """Whether a letter is part of a word. Scripts without capitals (category Lo) do not count: many have no spaces between words."""
    return unicodedata.category(letter) in ("Lu", "Ll", "Lt", "Nd", "Mn", "Mc")

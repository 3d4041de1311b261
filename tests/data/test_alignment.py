"""Words and pieces: what is aligned comes back whole, for every tokenizer, whatever the words are made of and however short the windows."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_files import byte_pairs, charsmap, pieces, write_roberta, write_xlmr, xlmr_description

from minigrad.data.alignment import (
    ScoredEntity,
    Window,
    encode_words,
    entities_of,
    join_words,
    tags_of_words,
    token_labels,
    unaligned,
    word_places,
)
from minigrad.data.readers import read_records
from minigrad.data.records import Entity, Record
from minigrad.data.tagging import tags_of
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import ArgumentError, DataError, ShapeError
from minigrad.ops.loss_arguments import IGNORED

TOKENS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "pump", "Pump", "##s", "a", "##a", "b", "##b", ".", ",", "'", "中", "cafe", "é",
    "👍",
]  # fmt: skip
DROPPED = ["\u200b", "\u00ad", "\x07", "\u3000", "\u00a0", "\ufeff", "\u200d\u200d"]
"""Words of which some tokenizer keeps nothing: without width, control characters, and spaces other than the one between words."""
WORDS = st.one_of(
    st.sampled_from(
        ["the", "pumps", "Pump", "café", "cafe\u0301", "don't", "U.S.A.", "...", "中文", "👍🏽", "\u0301", "x\u200b", "aab" * 40]
    ),
    st.sampled_from(["[SEP]", "[MASK]", "<s>", "<mask>", "a<mask>b", "▁", "Ġ", "İstanbul", "ﬁne", "①"]),
    st.sampled_from(DROPPED),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" "), min_size=1, max_size=5),
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    for name in ("cased", "uncased"):
        (folder / name).mkdir()
        (folder / name / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
        (folder / name / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": name == "uncased"}), encoding="utf-8")
    write_roberta(folder / "BPE", *byte_pairs())
    write_xlmr(folder / "Unigram", xlmr_description(pieces(), charsmap({"ﬁ": "fi", "①": "1", "\u3000": " ", "\u200b": ""})))
    return {name: Tokenizer.from_pretrained(folder / name) for name in ("cased", "uncased", "BPE", "Unigram")}


KINDS = pytest.mark.parametrize("kind", ["cased", "uncased", "BPE", "Unigram"])


def record(text: str, entities: Any = None, words: Any = None) -> Record:
    return Record(text, None, "a.conll", 7, {}, entities=None if entities is None else tuple(entities), words=words)


def sentence(words: list[str], tags: list[str]) -> Record:
    """As the reader of CoNLL files gives it."""
    ends = np.cumsum([len(word) + 1 for word in words]).tolist()
    places = tuple((end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True))
    return record(" ".join(words), entities_of(places, tags), places)


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Words and their tags, spans of which may touch."""
    words = draw(st.lists(WORDS, max_size=12))
    spans, place = [], 0
    for gap, size, kind in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["PER", "a-b"])), max_size=4)):
        if place + gap + size <= len(words):
            spans.append((place + gap, place + gap + size, kind))
            place += gap + size
    return words, tags_of(spans, len(words))


NAMES = ["O", "B-PER", "I-PER", "B-a-b", "I-a-b"]


# ---------------------------------------------------------------- there and back


@KINDS
@given(drawn=st.lists(sentences(), max_size=3), max_length=st.integers(8, 40), data=st.data())
def test_tags_come_back(
    tokenizers: dict[str, Tokenizer], kind: str, drawn: list[tuple[list[str], list[str]]], max_length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.none() | st.integers(0, max_length - 3))
    records = [sentence(words, tags) for words, tags in drawn]
    windows, places = encode_words(tokenizers[kind], records, max_length, stride)
    assert [tags_of_words(one, words) for one, words in zip(records, places, strict=True)] == [tags for _, tags in drawn]
    assert not any(unaligned(one, words) for one, words in zip(records, places, strict=True))

    ids = [np.array([NAMES.index(tag) for tag in tags], np.int64) for _, tags in drawn]
    labels = token_labels(windows, ids)
    for shown, row in zip(windows, labels, strict=True):
        assert len(shown.ids) == len(shown.type_ids) == len(shown.words) == len(row) <= max_length
        assert (shown.ids[0], shown.ids[-1]) == (tokenizers[kind].cls_id, tokenizers[kind].sep_id)
        assert (shown.words[0], shown.words[-1]) == (-1, -1)
        assert ((row == IGNORED) == (shown.words < 0)).all()
    answered = [(shown.record, word) for shown in windows for word in shown.words.tolist() if word >= 0]
    assert sorted(answered) == [(i, word) for i, (words, _) in enumerate(drawn) for word in range(len(words))]  # each exactly once

    scores = [np.eye(len(NAMES))[np.where(row < 0, (shown.ids + 1) % len(NAMES), row)] for shown, row in zip(windows, labels, strict=True)]
    for found, (words, tags), spot in zip(join_words(windows, scores, [len(w) for w, _ in drawn]), drawn, places, strict=True):
        assert found.shape == (len(words), len(NAMES))
        assert [NAMES[i] for i in found.argmax(axis=1)] == tags
        assert entities_of(spot, tags) == list(sentence(words, tags).entities or ())


@KINDS
@given(words=st.lists(WORDS, max_size=12), max_length=st.integers(8, 40))
def test_windows_hold_the_text(tokenizers: dict[str, Tokenizer], kind: str, words: list[str], max_length: int) -> None:
    """Windows that share nothing are the whole encoding, cut, with unknown tokens put in for words that have none."""
    tokenizer, text = tokenizers[kind], " ".join(words)
    windows, _ = encode_words(tokenizer, [sentence(words, ["O"] * len(words))], max_length, stride=0)
    found = np.concatenate([shown.ids[1:-1] for shown in windows]).tolist()
    rest = iter(found)
    assert all(any(token == other for other in rest) for token in tokenizer.encode([text])[0].ids[1:-1])  # in this order
    added = len(found) - (len(tokenizer.encode([text])[0]) - 2)
    assert 0 <= added <= found.count(tokenizer.unk_id)
    if kind == "BPE" and not any(token in text for token in ("<s>", "<mask>", "<pad>", "</s>", "<unk>")):
        assert added == 0  # bytes drop nothing


@KINDS
@given(text=st.lists(WORDS, max_size=12).map(" ".join), data=st.data())
def test_entities_come_back_where_words_begin_and_end(tokenizers: dict[str, Tokenizer], kind: str, text: str, data: st.DataObject) -> None:
    """Of a text that no file cut into words: whatever the spans are, just those that `unaligned` names are lost or changed."""
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = [Entity(start, end, data.draw(st.sampled_from(["PER", "a-b"]))) for start, end in pairwise(edges) if data.draw(st.booleans())]
    one = record(text, spans)
    windows, (places,) = encode_words(tokenizers[kind], [one], 8)
    assert sum((shown.words >= 0).sum() for shown in windows) == len(places)
    tags = tags_of_words(one, places)
    found = entities_of(places, tags)
    assert [entity for entity in spans if entity not in found] == unaligned(one, places)
    for place, tag in zip(places, tags, strict=True):
        first = next((entity for entity in spans if place[0] < entity.end and entity.start < place[1]), None)
        assert tag[2:] == ("" if first is None else first.type)


# ---------------------------------------------------------------- words


def test_words_of_a_text(tokenizers: dict[str, Tokenizer]) -> None:
    text = "The café's pumps,  中文 leaked"
    one = record(text)

    def words(kind: str) -> list[str]:
        (encoding,) = tokenizers[kind].encode([text])
        return [text[start:end] for start, end in word_places(one, encoding, tokenizers[kind].kind)]

    assert words("uncased") == words("cased") == ["The", "café", "'", "s", "pumps", ",", "中", "文", "leaked"]
    assert words("BPE") == words("Unigram") == ["The", "café's", "pumps,", "中文", "leaked"]


def test_the_words_of_the_file_count(tokenizers: dict[str, Tokenizer]) -> None:
    """Even where they abut, or a piece stands for two of them: each has a token of its own."""
    for places in (((0, 2), (2, 5)), ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))):
        for tokenizer in tokenizers.values():
            (shown,), found = encode_words(tokenizer, [record("pumps", words=places)], 20)
            assert found == [list(places)]
            assert [word for word in shown.words if word >= 0] == list(range(len(places)))


def test_first_pieces(tokenizers: dict[str, Tokenizer]) -> None:
    windows, _ = encode_words(tokenizers["uncased"], [sentence(["The", "\u200b", "pumps", "U.S.", "\u3000"], ["O"] * 5)], 20)
    names = tokenizers["uncased"].convert_ids_to_tokens(windows[0].ids)
    assert names == ["[CLS]", "the", "[UNK]", "pump", "##s", "[UNK]", ".", "[UNK]", ".", "[UNK]", "[SEP]"]
    assert windows[0].words.tolist() == [-1, 0, 1, 2, -1, 3, -1, -1, -1, 4, -1]
    assert windows[0].record == 0 and not windows[0].type_ids.any()


def test_the_space_that_byte_pairs_write_apart_is_a_first_piece(tokenizers: dict[str, Tokenizer]) -> None:
    (shown,), _ = encode_words(tokenizers["BPE"], [sentence(["the", "Quux", "pumps"], ["O"] * 3)], 20)
    names = tokenizers["BPE"].convert_ids_to_tokens(shown.ids)
    assert names == ["<s>", "the", "Ġ", "Q", "u", "u", "x", "Ġpumps", "</s>"]
    assert shown.words.tolist() == [-1, 0, 1, -1, -1, -1, -1, 2, -1]


def test_a_word_is_answered_for_where_most_is_shown_around_it(tokenizers: dict[str, Tokenizer]) -> None:
    """Twenty words of one token in windows of six that share four: each in the window whose middle is nearest."""
    windows, _ = encode_words(tokenizers["uncased"], [sentence(["pump"] * 20, ["O"] * 20)], 8, stride=4)
    answers = [[word for word in shown.words.tolist() if word >= 0] for shown in windows]
    assert answers == [[0, 1, 2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13], [14, 15], [16, 17, 18, 19]]
    for start, shown in enumerate(windows):
        assert [int(place) + 2 * start - 1 for place in np.flatnonzero(shown.words >= 0)] == answers[start]


def test_a_text_of_nothing(tokenizers: dict[str, Tokenizer]) -> None:
    for tokenizer in tokenizers.values():
        (shown,), places = encode_words(tokenizer, [record("", [])], 8)
        assert places == [[]] and shown.words.tolist() == [-1, -1] and tags_of_words(record("", []), []) == []
        assert join_words([shown], [np.zeros((2, 3), np.float32)], [0])[0].shape == (0, 3)
        assert encode_words(tokenizer, [], 8) == ([], []) and join_words([], [], []) == [] == token_labels([], [])


# ---------------------------------------------------------------- entities and tags


def test_a_word_belongs_to_the_first_entity_that_overlaps_it() -> None:
    text = "New York-based Mr Ito"
    places = [(0, 3), (4, 14), (15, 17), (18, 21)]
    entities = [Entity(0, 8, "LOC"), Entity(9, 14, "X"), Entity(15, 17, "PER"), Entity(18, 21, "PER")]
    one = record(text, entities)
    assert tags_of_words(one, places) == ["B-LOC", "I-LOC", "B-PER", "B-PER"]
    assert unaligned(one, places) == entities[:2]  # the first grows to its word's end, the second has no word left
    assert entities_of(places, tags_of_words(one, places)) == [Entity(0, 14, "LOC"), *entities[2:]]
    assert tags_of_words(record(text, [Entity(3, 4, "SPACE")]), places) == ["O"] * 4
    assert unaligned(record(text, [Entity(3, 4, "SPACE")]), places) == [Entity(3, 4, "SPACE")]


def test_entities_carry_the_mean_probability_of_their_words() -> None:
    places, tags = [(0, 3), (4, 8), (9, 12)], ["B-LOC", "I-LOC", "B-PER"]
    assert entities_of(places, tags, [0.5, 1.0, 0.25]) == [ScoredEntity(0, 8, "LOC", 0.75), ScoredEntity(9, 12, "PER", 0.25)]
    assert entities_of(places, ["O", "I-LOC", "I-PER"]) == [Entity(4, 8, "LOC"), Entity(9, 12, "PER")]  # as conlleval reads them


# ---------------------------------------------------------------- refusals


def test_unusable_lengths_are_named(tokenizers: dict[str, Tokenizer]) -> None:
    long = [sentence(["pump"], ["O"]), sentence(["pump"] * 30, ["O"] * 30)]
    for wrong, words in ((2, "record 0 leaves no room for text: 2 other tokens of 2"), (0, "max_length must be an integer of at least 1")):
        with pytest.raises(ArgumentError, match=words):
            encode_words(tokenizers["cased"], long, wrong)
    with pytest.raises(ArgumentError, match="stride must lie between 0 and 5, as record 1 leaves 6 tokens; got 6"):
        encode_words(tokenizers["cased"], long, 8, stride=6)
    with pytest.raises(ArgumentError, match="max_length must be an integer"):
        encode_words(tokenizers["cased"], long, "many")  # type: ignore[arg-type]


def test_records_without_entities_are_named() -> None:
    for function in (tags_of_words, unaligned):
        with pytest.raises(DataError, match=r"a\.conll:7: the record has no entities") as caught:
            function(record("a b"), [(0, 1), (2, 3)])
        assert caught.value.code == "missing-entities"


def test_what_does_not_fit_is_named() -> None:
    shown = Window(0, np.zeros(4, np.int64), np.zeros(4, np.int64), np.array([-1, 0, 1, -1]))
    for ids in ([], [[5]]):
        with pytest.raises(ShapeError, match=r"record 0 has at least 2 words but (no|1) labels"):
            token_labels([shown], [np.array(row) for row in ids])
    for rows, counts, words in (
        ([], [2], "1 windows but rows of 0"),
        ([3], [2], "window 0 has 4 tokens but 3 rows"),
        ([4], [1], "window 0 answers for words of record 0 that counts do not know"),
        ([4], [], "window 0 answers for words of record 0 that counts do not know"),
        ([4], [3], "record 0 has 3 words, the windows answer for 2"),
        ([4], [2, 1], "record 1 has 1 words, the windows answer for 0"),
    ):
        with pytest.raises(ShapeError, match=words):
            join_words([shown], [np.zeros((row, 5)) for row in rows], counts)
    with pytest.raises(ShapeError, match="record 0 has 2 words, the windows answer for 0"):
        join_words([], [], [2])
    with pytest.raises(ShapeError, match="2 words but 1 tags: every word needs one"):
        entities_of([(0, 1), (2, 3)], ["O"])
    with pytest.raises(ShapeError, match="1 words but 1 tags and 0 scores"):
        entities_of([(0, 1)], ["O"], [])
    with pytest.raises(ArgumentError, match="the tag 'X'"):
        entities_of([(0, 1)], ["X"])


# ---------------------------------------------------------------- real text


def test_every_word_of_wnut_has_one_place(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "vocabs" / "bert-base-uncased.vocab.txt", tmp_path / "vocab.txt")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        records = read_records(shared_data / "wnut17" / name, format="conll")
        windows, places = encode_words(tokenizer, records, 32)
        assert len(windows) > len(records)  # some are long enough to be cut
        assert places == [list(one.words or ()) for one in records]
        answered = [(shown.record, word) for shown in windows for word in shown.words.tolist() if word >= 0]
        assert sorted(answered) == [(i, word) for i, words in enumerate(places) for word in range(len(words))]

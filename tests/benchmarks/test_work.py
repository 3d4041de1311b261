"""The texts that are timed, and how they are dealt into batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness.work import IGNORED, SIZES, WINDOW, Size, draw_texts, grouped_batches, make_work, plain_batches, spread_sample
from small_models import directory

SMALL = Size(1, 8, 2, 16, 4)


def lengths_of(texts: list[np.ndarray]) -> list[int]:
    return [len(text) for text in texts]


def test_mixed_lengths_are_those_that_are_promised() -> None:
    lengths = lengths_of(draw_texts("mixed", 20_000, np.random.default_rng(0)))
    assert min(lengths) == 4 and max(lengths) == 128
    assert abs(np.mean(lengths) - 40) < 0.5  # the standard error of 20,000 draws is 0.17
    longer = lengths_of(draw_texts("mixed-512", 20_000, np.random.default_rng(0)))
    assert max(longer) == 512 and abs(np.mean(longer) - 160) < 2
    assert set(lengths_of(draw_texts("full", 5, np.random.default_rng(0)))) == {128}
    assert set(lengths_of(draw_texts("200", 5, np.random.default_rng(0)))) == {200}


def test_a_file_gives_the_lengths_of_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one two three\n\nthe pump leaks\n" + "word " * 300 + "\n", encoding="utf-8")
    assert sorted(lengths_of(draw_texts(str(path), 3, np.random.default_rng(0)))) == [5, 5, 128]
    assert len(draw_texts(str(path), 10, np.random.default_rng(0))) == 10  # more than the file has: some come twice


def test_a_file_with_a_model_gives_the_ids_of_its_tokenizer(tmp_path: Path) -> None:
    path, model = tmp_path / "texts.txt", directory(tmp_path / "model", "BertModel")
    path.write_text("the pump\n", encoding="utf-8")
    assert draw_texts(str(path), 1, np.random.default_rng(0), model)[0].tolist() == [2, 5, 6, 3]  # [CLS] the pump [SEP]


def test_grouped_batches_hold_the_same_texts_in_order_of_length() -> None:
    texts = draw_texts("mixed", 2 * WINDOW * 4, np.random.default_rng(0))
    batches = grouped_batches(texts, 4)
    assert len(batches) == 2 * WINDOW
    for window in (batches[:WINDOW], batches[WINDOW:]):
        lengths = [length for batch in window for length in lengths_of(batch)]
        assert lengths == sorted(lengths, reverse=True)
    assert sorted(map(id, texts)) == sorted(id(text) for batch in batches for text in batch)


def test_the_sample_stands_for_all_lengths() -> None:
    texts = draw_texts("mixed", 4000, np.random.default_rng(0))
    sample = spread_sample(grouped_batches(texts, 4), 24)
    mean = np.mean([length for batch in sample for length in lengths_of(batch)])
    assert abs(mean / np.mean(lengths_of(texts)) - 1) < 0.05  # 24 parts of a smooth distribution: their middles miss a part of its tail
    tokens = [sum(lengths_of(batch)) for batch in sample]
    assert tokens == sorted(tokens) and tokens[0] < 0.5 * tokens[12] < 0.5 * tokens[-1]


@pytest.mark.parametrize("grouped", [False, True])
def test_work_is_the_same_every_time(grouped: bool) -> None:
    work = make_work(SMALL, "token", "mixed", count=3, grouped=grouped)
    assert work == make_work(SMALL, "token", "mixed", count=3, grouped=grouped)
    assert [len(batch) for batch in work.batches] == [4, 4, 4]
    assert work.tokens == sum(len(text) for batch in work.batches for text in batch) / 3


def test_labels_fit_the_head() -> None:
    work = make_work(SMALL, "sequence", "mixed", count=2)
    assert [len(labels) for labels in work.labels()] == [4, 4]
    work = make_work(SMALL, "token", "full", count=2)
    assert [[len(tags) for tags in batch] for batch in work.labels()] == work.lengths
    ignored = np.mean([tag == IGNORED for batch in work.labels() for tags in batch for tag in tags])
    assert 0.2 < ignored < 0.4  # of 1,024 tokens, 0.3 is expected
    assert work.labels() == work.labels()


def test_plain_batches_keep_the_order() -> None:
    texts = draw_texts("mixed", 5, np.random.default_rng(0))
    assert [lengths_of(batch) for batch in plain_batches(texts, 2)] == [lengths_of(texts)[i : i + 2] for i in (0, 2, 4)]


def test_sizes_are_those_of_the_published_models() -> None:
    assert (SIZES["base"].layers, SIZES["base"].hidden, SIZES["base"].intermediate) == (12, 768, 3072)
    assert all(size.hidden == 64 * size.heads and size.intermediate == 4 * size.hidden for size in SIZES.values())

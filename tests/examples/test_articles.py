"""The mistakes that articles on fine-tuning make, one test each: the wrong way gives a wrong number or is refused, the right way is not.

`examples/articles/README.md` has the table. The two scripts are run whole, and no script of examples/ uses a name that nobody defined.
"""

from __future__ import annotations

import builtins
import dis
import json
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import pytest
from examples.scripts import EXAMPLES, script
from small_models import directory

import minigrad as mg
from minigrad.data import LabelMap, PackedLoader, PackedTokens, Record, Tokenizer
from minigrad.data.alignment import encode_words, join_words, tags_of_words, token_labels
from minigrad.data.readers import records_from
from minigrad.errors import ArgumentError, ShapeError
from minigrad.models import BertForTokenClassification
from minigrad.train.metrics import accuracy, classification_report, ner_report
from minigrad.train.objectives import SequenceClasses
from minigrad.train.settings import TrainingSettings
from minigrad.train.trainer import Trainer

WORDS = [["maria", "painted", "berlin"], ["the", "nurse", "was", "in", "zürich"], ["pumps", "leaked"]]
TAGS = [["B-PER", "O", "B-LOC"], ["O", "O", "O", "O", "B-LOC"], ["O", "O"]]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory(tmp_path_factory.mktemp("model") / "tiny", "BertModel")


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return records_from([{"tokens": words, "tags": tags} for words, tags in zip(WORDS, TAGS, strict=True)])


def numbered(records: list[Record], places: list[Any]) -> tuple[LabelMap, list[np.ndarray[Any, Any]]]:
    """The labels, and the id of each word's tag."""
    labels = LabelMap.of_tags(records)
    return labels, [
        np.array([labels.names.index(tag) for tag in tags_of_words(record, words)]) for record, words in zip(records, places, strict=True)
    ]


# 1
def test_labels_must_be_aligned_to_word_pieces(tokenizer: Tokenizer, records: list[Record]) -> None:
    windows, places = encode_words(tokenizer, records, 64)
    labels, ids = numbered(records, places)
    assert all(len(window.ids) > len(words) + 2 for window, words in zip(windows, WORDS, strict=True)), "some words have several pieces"
    with pytest.raises(ShapeError, match=r"sequence 0 has \d+ token ids but 3 token labels"):
        PackedLoader([window.ids for window in windows], token_labels=ids)

    def learned(own: list[np.ndarray[Any, Any]]) -> list[list[str]]:
        """The tags of the words for a model that gives every token the label it was taught; untaught ones are outside."""
        rows = [np.eye(len(labels))[np.where(row < 0, 0, row)] for row in own]
        return [[labels.names[i] for i in row.argmax(axis=1)] for row in join_words(windows, rows, [len(words) for words in places])]

    right = token_labels(windows, ids)
    assert ner_report(TAGS, learned(right)).entity.micro.f1 == 1.0
    # The wrong way: one label after another from [CLS] on, filled up with O. It fits in shape, so nobody complains.
    wrong = [np.concatenate([row, np.zeros(len(window.ids) - len(row), np.int64)]) for row, window in zip(ids, windows, strict=True)]
    PackedLoader([window.ids for window in windows], token_labels=wrong)
    assert ner_report(TAGS, learned(wrong)).entity.micro.f1 == 0.0


# 2
def test_padding_is_not_scored(model_dir: Path, tokenizer: Tokenizer, records: list[Record]) -> None:
    nothing_found = [["O"] * len(tags) for tags in TAGS]
    report = ner_report(TAGS, nothing_found)
    assert (report.token.accuracy, report.entity.micro.f1) == (7 / 10, 0.0)
    padded = [tags + ["O"] * (64 - len(tags)) for tags in TAGS]
    flattered = ner_report(padded, [["O"] * 64] * 3)
    assert flattered.token.accuracy == 1 - 3 / (3 * 64) > 0.98, "the same model, as padding makes it look"
    with pytest.raises(ShapeError, match="without padding"):
        ner_report(TAGS, [["O"] * 64] * 3)

    windows, places = encode_words(tokenizer, records, 64)
    labels, ids = numbered(records, places)
    model = BertForTokenClassification.from_pretrained(model_dir, num_labels=len(labels))
    longest = max(len(window.ids) for window in windows)
    fill = [longest - len(window.ids) for window in windows]
    tokens = [np.pad(window.ids, (0, more)) for window, more in zip(windows, fill, strict=True)]
    mask = [np.pad(np.ones(len(window.ids), np.int64), (0, more)) for window, more in zip(windows, fill, strict=True)]
    own = token_labels(windows, ids)
    as_outside, as_ignored = (
        np.array([np.pad(row, (0, more), constant_values=value) for row, more in zip(own, fill, strict=True)]) for value in (0, -100)
    )
    with pytest.raises(ArgumentError, match="where attention_mask says padding: labels of padding must be -100"):
        model(np.array(tokens), attention_mask=np.array(mask), labels=as_outside)
    loss = model.eval()(np.array(tokens), attention_mask=np.array(mask), labels=as_ignored).loss.item()
    packed = model(PackedTokens.of([window.ids for window in windows]), labels=np.concatenate(own)).loss.item()
    assert loss == pytest.approx(packed, rel=1e-5)  # float32, summed in another order


# 3
def test_sentences_of_tags_are_no_flat_list() -> None:
    predicted = [["B-PER", "O", "B-LOC"], ["O", "O", "O", "B-LOC", "I-LOC"], ["O", "O"]]
    names = ["O", "B-PER", "B-LOC", "I-LOC"]
    gold, said = ([[names.index(tag) for tag in tags] for tags in sentences] for sentences in (TAGS, predicted))
    with pytest.raises(ShapeError, match="labels must be"):
        classification_report(gold, said, names)  # type: ignore[arg-type]
    # Flattened it runs, and tells of words where the question was for entities.
    flat = classification_report([i for row in gold for i in row], [i for row in said for i in row], names)
    report = ner_report(TAGS, predicted)
    assert flat.accuracy == report.token.accuracy == 8 / 10
    assert report.entity.micro.f1 == 2 / 3, "the span that begins a word early is wrong as a whole"


# 4
@pytest.mark.parametrize(("metric", "kept"), [("entity_f1", 2), ("loss", 3)])
def test_the_best_checkpoint_is_kept_and_not_the_worst(tmp_path: Path, metric: str, kept: int) -> None:
    figures = [{"entity_f1": f1, "loss": loss} for f1, loss in ((0.2, 0.9), (0.6, 0.5), (0.8, 0.4), (0.7, 0.3))]
    worst = float("inf")
    for epoch, found in enumerate(figures):  # what articles do: `<`, as for a loss, on a metric that should rise
        if found["entity_f1"] < worst:
            worst, kept_by_article = found["entity_f1"], epoch
    assert kept_by_article == 0, "the worst of four"

    model = directory(tmp_path / "model", "BertForSequenceClassification", num_hidden_layers=1)
    network = mg.models.load(model)
    weights = []

    def evaluate() -> dict[str, float]:
        weights.append(network.state_dict()["classifier.weight"].copy())
        return figures[len(weights) - 1]

    loader = PackedLoader([[2, 5, 3], [2, 6, 3]], [0, 1], batch_size=2)
    settings = TrainingSettings(epochs=4, lr=1e-3, metric=metric, warmup=0.0)
    trainer = Trainer(
        network, SequenceClasses(), loader, settings, evaluate=evaluate, output=tmp_path / "run", save_model=network.save_pretrained
    )
    result = trainer.fit()
    assert result.best == {"step": kept + 1, "metrics": figures[kept]}
    saved = mg.models.load(tmp_path / "run" / "best").state_dict()["classifier.weight"]
    assert [np.array_equal(saved, at) for at in weights] == [epoch == kept for epoch in range(4)]


# 5
def undefined_names(code: CodeType, known: set[str]) -> set[str]:
    """Global names that a piece of code, or a function in it, reads and that are not among `known`."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")} - known
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= undefined_names(inner, known)
    return found


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.stem)
def test_every_name_is_defined(path: Path) -> None:
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    module = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_NAME"}
    assert undefined_names(code, module | set(dir(builtins)) | {"__file__", "__name__", "__doc__", "__annotations__"}) == set()


def test_a_name_that_is_missing_where_no_run_comes_by_is_found() -> None:
    code = compile("def train(loader):\n    if not loader:\n        return len(val_dataloader)\n    return 0\n", "article", "exec")
    assert undefined_names(code, {"train"} | set(dir(builtins))) == {"val_dataloader"}


# 6
def test_argmax_is_taken_of_the_logits_and_not_of_the_output(model_dir: Path, tokenizer: Tokenizer) -> None:
    model = mg.models.load(model_dir, "sequence-classification", num_labels=2).eval()
    texts = ["the pump leaked", "maria was in berlin", "x", "the nurse works well", "pumps", "in berlin"]
    output = model(PackedTokens.of([encoding.ids for encoding in tokenizer.encode(texts)]))
    said = output.logits.numpy().argmax(axis=1)
    assert accuracy(said, said) == 1.0
    # NumPy takes any object for an array of one element, so this runs, and says class 0 of whatever it is given.
    wrong = np.argmax(output)  # type: ignore[arg-type]
    assert wrong == 0 and np.ndim(wrong) == 0
    with pytest.raises(ShapeError, match="predictions must be a row of class ids"):
        accuracy(said, wrong)


# ---- the scripts


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """180 records of the shipped ones, evenly spread."""
    lines = (EXAMPLES / "data" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(lines[::5]) + "\n", encoding="utf-8")
    assert len({json.loads(line)["label"] for line in lines[::5]}) == 8
    yield path


@pytest.mark.parametrize("name", ["ner_article", "recommender_article"])
def test_the_articles_run(model_dir: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    module: ModuleType = script(f"articles/{name}.py")
    output = tmp_path / "out"
    figure = module.main(
        ["--model", str(model_dir), "--layers", "1", "--records", str(data), "--epochs", "1", "--lr", "5e-3", "--output", str(output)]
    )
    assert 0 <= figure <= 1
    printed = capsys.readouterr().out
    assert "(best so far)" in printed and "precision" in printed
    assert len(mg.models.load(output).config.id2label) == {"ner_article": 13, "recommender_article": 2}[name]

"""`audit` and its command: right models pass with a verdict for every parameter, and every known kind of error is found and named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.cases import config
from small_models import TOKENS, directory

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.audit_report import FAILED, MEANINGS, Audit, AuditError
from minigrad.errors import ArgumentError, StateDictError
from minigrad.models import BertForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification

IDS, LABELS = np.array([[1, 2, 3], [4, 5, 1]]), np.array([0, 2])


class Classifier(nn.Module):
    """An embedding, its mean, a hidden layer and a linear classifier; `wrong` is the error planted between embedding and mean."""

    def __init__(self, wrong: Callable[[mg.Tensor], mg.Tensor] = lambda x: x) -> None:
        self.embedding = nn.Embedding(6, 4)
        self.hidden = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.4))
        self.classifier = nn.Linear(5, 3)
        self.wrong = wrong

    def forward(self, ids: Any, labels: Any) -> mg.Tensor:
        pooled = self.wrong(self.embedding(ids)).mean(axis=1)
        return F.cross_entropy(self.classifier(self.hidden(pooled)), labels)


def verdicts(found: Audit) -> dict[str, str]:
    return {row.name: row.verdict for row in found.rows}


def failed(model: nn.Module) -> Audit:
    with pytest.raises(AuditError) as caught:
        mg.audit(model, (IDS, LABELS))
    assert str(caught.value.audit) in str(caught.value)
    return caught.value.audit


# ---------------------------------------------------------------- what is right passes
@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_of_a_right_model_is_judged(training: bool) -> None:
    mg.manual_seed(0)
    model = Classifier().train(training)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    found = mg.audit(model, {"ids": IDS, "labels": LABELS})
    assert found and [row.name for row in found.rows] == [name for name, _ in model.named_parameters()]
    assert set(verdicts(found).values()) == {"ok"}
    assert all(row.relative_error < 1e-6 and row.gradient_norm > 0 for row in found.rows)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
        assert array.dtype == np.float32
    assert all(p.grad is None for p in model.parameters())


def test_bert_with_dropout_on_passes_and_key_biases_are_zero() -> None:
    mg.manual_seed(0)
    model = BertForSequenceClassification(config(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)).train()
    ids = np.random.default_rng(0).integers(1, 9, (4, 6))  # without [PAD], which the published model does not train
    found = mg.audit(model, {"input_ids": ids, "labels": np.array([0, 1, 2, 1])})
    words = verdicts(found)
    assert {name for name, word in words.items() if word == "zero"} == {name for name in words if name.endswith("key.bias")}
    assert set(words.values()) == {"ok", "zero"}
    assert "2 zero: gradient and change of the loss are both at rounding level" in str(found)


def test_the_stream_of_random_numbers_stays_where_it_was() -> None:
    model = Classifier().train()
    mg.manual_seed(3)
    expected = F.dropout(mg.ones((2, 8))).tolist()
    mg.manual_seed(3)
    mg.audit(model, (IDS, LABELS))
    assert F.dropout(mg.ones((2, 8))).tolist() == expected


def test_a_model_in_training_under_an_optimizer_can_be_audited() -> None:
    model = Classifier()
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=0.1)
    model(IDS, LABELS).backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    assert mg.audit(model, (IDS, LABELS))
    for name, p in model.named_parameters():
        assert p.grad is not None
        np.testing.assert_array_equal(p.grad.numpy(), gradients[name])
    optimizer.step()
    assert mg.audit(model, (IDS, LABELS))


def test_a_loss_of_ones_own_and_a_batch_of_floats() -> None:
    model, batch = nn.Linear(3, 2), np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    assert mg.audit(model, batch, lambda m, x: (m(x) ** 2).sum())


def test_corners_of_relu_are_no_errors() -> None:
    """For the rows of zeros the bias is exactly at the kink: the gradient lies between the two slopes."""
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    model.layers[0].bias.assign(np.zeros(2))  # type: ignore[attr-defined]
    found = mg.audit(model, np.vstack([np.zeros((2, 3)), np.eye(3)]), lambda m, x: m(x).sum())
    assert verdicts(found)["layers.0.bias"] == "kink"


@pytest.mark.parametrize("seed", range(8))
def test_opposite_corners_that_make_a_line_are_no_errors(seed: int) -> None:
    """Rows of zeros and biases of zero put every unit at its kink: relu(t) - relu(-t) = t has slope 1, but ReLU's gradient there is 0."""
    mg.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 4), nn.ReLU(), nn.Linear(4, 3))
    for layer in model.layers[::2]:
        layer.bias.assign(np.zeros(layer.bias.shape))  # type: ignore[attr-defined]
    rows = np.vstack([np.zeros((3, 3)), np.random.default_rng(seed).standard_normal((3, 3))])
    words = verdicts(mg.audit(model, rows, lambda m, x: F.cross_entropy(m(x), [0, 0, 1, 2, 0, 1]), seed=seed))
    assert words["layers.0.bias"] == "kink" and set(words.values()) <= {"ok", "kink"}


@pytest.mark.parametrize("seed", range(8))
def test_parameters_with_one_element_none_and_no_axes(seed: int) -> None:
    """In one dimension a random direction is that of the gradient or its opposite."""
    model = nn.Linear(3, 1)
    model.scale = mg.Parameter(2.0)  # type: ignore[attr-defined]
    model.nothing = mg.Parameter(np.zeros((0, 2)))  # type: ignore[attr-defined]
    x = np.random.default_rng(0).standard_normal((4, 3))
    found = mg.audit(model, x, lambda m, x: ((m(x) * m.scale - 1.0) ** 2).mean() + m.nothing.sum(), seed=seed)
    assert verdicts(found) == {"weight": "ok", "bias": "ok", "scale": "ok", "nothing": "zero"}


def test_the_row_that_stands_for_padding_is_untrained_on_purpose() -> None:
    model = Classifier()
    model.embedding = nn.Embedding(6, 4, padding_idx=1)
    assert set(verdicts(mg.audit(model, (IDS, LABELS))).values()) == {"ok"}


def test_a_parameter_may_leave_the_domain_of_its_loss() -> None:
    model = nn.Module()
    model.small = mg.Parameter(np.full(3, 1e-3))  # type: ignore[attr-defined]
    assert verdicts(mg.audit(model, None, lambda m, _: m.small.log().sum())) == {"small": "ok"}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6, 1e12])
def test_losses_of_any_size(scale: float) -> None:
    assert set(verdicts(mg.audit(Classifier(), (IDS, LABELS), lambda m, b: m(*b) * scale)).values()) == {"ok"}


# ---------------------------------------------------------------- what is wrong is found
def test_a_detached_embedding_is_found() -> None:
    found = failed(Classifier(lambda x: x.detach()))
    assert verdicts(found) == {
        "embedding.weight": "missing", "hidden.layers.0.weight": "ok", "hidden.layers.0.bias": "ok", "classifier.weight": "ok",
        "classifier.bias": "ok",
    }  # fmt: skip


@mg.custom_op("*s, *s -> *s")
def swapped_product(xp: Any, x: Any, y: Any) -> Any:
    """x · y with a pullback that confuses its operands."""
    return x * y, (lambda g: g * x, lambda g: g * y)


def test_a_swapped_operand_in_a_pullback_is_found() -> None:
    found = failed(Classifier(lambda x: swapped_product(x, x * 0.5 + 1.0)))
    assert [row.name for row in found.failures] == ["embedding.weight"]
    assert verdicts(found)["embedding.weight"] == "wrong" and found.failures[0].relative_error > 1e-3


def test_a_gradient_off_by_a_thousandth_is_found() -> None:
    @mg.custom_op("*s -> *s")
    def slightly_off(xp: Any, x: Any) -> Any:
        return xp.tanh(x), (lambda g: g * (1.0 - xp.tanh(x) ** 2) * 1.001,)

    assert verdicts(failed(Classifier(slightly_off)))["embedding.weight"] == "wrong"


def test_a_layer_in_a_closure_is_found() -> None:
    hidden = nn.Linear(4, 4)
    found = failed(Classifier(lambda x: hidden(x)))
    assert [(row.shape, row.verdict) for row in found.failures] == [((4,), "unregistered"), ((4, 4), "unregistered")]


def test_a_layer_in_a_set_is_found() -> None:
    model = Classifier()
    model.more = {nn.Linear(4, 4)}  # type: ignore[attr-defined]
    with pytest.raises(StateDictError, match="more is a set of layers"):
        mg.audit(model, (IDS, LABELS))


def test_a_trainable_parameter_that_nobody_uses_is_found_and_a_frozen_one_is_named() -> None:
    model = Classifier()
    model.spare, model.still = nn.Linear(2, 2), nn.Linear(2, 2)  # type: ignore[attr-defined]
    model.freeze("still", "embedding")
    found = failed(model)
    words = verdicts(found)
    assert [row.name for row in found.failures] == ["spare.weight", "spare.bias"] and words["spare.bias"] == "unused"
    assert {name for name, word in words.items() if word == "frozen"} == {"embedding.weight", "still.weight", "still.bias"}
    model.freeze("spare")
    assert mg.audit(model, (IDS, LABELS))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_found(bad: float) -> None:
    @mg.custom_op("*s -> *s")
    def spoiled(xp: Any, x: Any) -> Any:
        return x * 1.0, (lambda g: np.full(g.shape, bad),)

    found = failed(Classifier(spoiled))
    assert verdicts(found)["embedding.weight"] == "not finite" and verdicts(found)["classifier.bias"] == "ok"
    assert "1 not finite: the gradient holds NaN or infinity" in str(found)


def test_a_wrong_gradient_beside_corners_is_found() -> None:
    @mg.custom_op("*s -> *s")
    def slightly_more(xp: Any, x: Any) -> Any:
        return x * 1.0, (lambda g: g * 1.001,)

    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    model.layers[0].bias.assign(np.zeros(8))  # type: ignore[attr-defined]
    with pytest.raises(AuditError) as caught:
        mg.audit(model, np.vstack([np.zeros((2, 3)), np.eye(3)]), lambda m, x: F.cross_entropy(slightly_more(m(x)), [0, 1, 2, 0, 1]))
    assert set(verdicts(caught.value.audit).values()) == {"wrong"}


def test_a_wrong_gradient_at_a_point_without_a_corner_is_found() -> None:
    """The gradient is 0 at 0 and right elsewhere: being right nearby is not enough."""

    @mg.custom_op("*s -> *s")
    def forgetful(xp: Any, x: Any) -> Any:
        return x * 2.0, (lambda g: g * 2.0 * (x != 0),)

    model = nn.Module()
    model.start = mg.Parameter(np.zeros(3))  # type: ignore[attr-defined]
    with pytest.raises(AuditError) as caught:
        mg.audit(model, None, lambda m, _: forgetful(m.start).exp().sum())
    assert verdicts(caught.value.audit) == {"start": "wrong"}


def test_a_loss_that_is_another_each_time_is_refused() -> None:
    draws = np.random.default_rng(0)
    with pytest.raises(ArgumentError, match=r"the second time.*by other means than minigrad's dropout"):
        mg.audit(Classifier(lambda x: x * draws.uniform(0.5, 1.5, x.shape)), (IDS, LABELS))


def test_a_loss_that_uses_the_model_instead_of_its_copy_is_refused() -> None:
    model = Classifier()
    with pytest.raises(ArgumentError, match="uses the model itself instead of its copy"):
        mg.audit(model, (IDS, LABELS), lambda _, batch: model(*batch))
    model.wrong = lambda x: x + model.embedding(IDS)
    with pytest.raises(ArgumentError, match="no attribute of the model hold a function that mentions the model"):
        mg.audit(model, (IDS, LABELS))


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = Classifier()
    model.last = model(IDS, LABELS)  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"cannot be copied: .*use \.detach\(\).*before it or remove the attribute"):
        mg.audit(model, (IDS, LABELS))


def test_what_proves_nothing_is_refused() -> None:
    model = Classifier()
    model.freeze("embedding", "hidden", "classifier")
    for nothing in (nn.Tanh(), model):
        with pytest.raises(ArgumentError, match="there is nothing to prove"):
            mg.audit(nothing, (IDS, LABELS))
    with pytest.raises(ArgumentError, match="must be a Module, got function"):
        mg.audit(lambda x: x, (IDS, LABELS))  # type: ignore[arg-type]
    for seed in (-1, 2**63, 0.5, True):
        with pytest.raises(ArgumentError, match="seed must be an integer from 0"):
            mg.audit(Classifier(), (IDS, LABELS), seed=seed)  # type: ignore[arg-type]


def test_every_verdict_has_a_meaning() -> None:
    assert set(FAILED) < set(MEANINGS)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda m, b: m(*b) * mg.ones(2), "one element, got a Tensor of shape"),
        (lambda m, b: 3.0, "one element, got float"),
        (lambda m, b: m(*b) * float("nan"), "loss is nan"),
    ],
)
def test_a_loss_that_is_no_finite_number_is_refused(loss: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        mg.audit(Classifier(), (IDS, LABELS), loss)


# ---------------------------------------------------------------- the command
def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minigrad", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | (environment or {}))


def test_the_command_audits_a_directory(minilm: Path, tmp_path: Path) -> None:
    data = tmp_path / "records.tsv"
    data.write_text("text\tlabel\nworks like new\tgood\nbroke after a day\tbad\n", encoding="utf-8")
    done = run("audit", str(minilm), "--data", str(data), "--layers", "1", "--max-length", "8")
    assert done.returncode == 0, done.stderr
    assert "bert.encoder.layer.0.attention.self.key.bias" in done.stdout and "zero" in done.stdout
    assert "on 2 records" in done.stdout and "passed" in done.stdout
    assert "a new head for bad, good" in done.stderr


def test_the_command_reads_a_file_in_another_encoding(minilm: Path, tmp_path: Path) -> None:
    data = tmp_path / "records.txt"
    data.write_text("text\tlabel\nworks like new\tschön\nbroke after a day\tbad\n", encoding="latin-1")
    arguments = ["audit", str(minilm), "--data", str(data), "--format", "tsv", "--layers", "1", "--max-length", "8"]
    assert "--encoding latin-1" in run(*arguments).stderr
    done = run(*arguments, "--encoding", "latin-1")
    assert done.returncode == 0 and "a new head for bad, schön" in done.stderr


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_command_audits_every_family_on_pairs_too(family: str, tmp_path: Path) -> None:
    folder, data = directory(tmp_path / "model", "BertForSequenceClassification"), tmp_path / "records.jsonl"
    if family == "distilbert":
        config = DistilBertConfig(
            vocab_size=len(TOKENS),
            max_position_embeddings=96,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
        DistilBertForSequenceClassification(config).save_pretrained(folder)
    rows = '{"text": "the pump", "text_b": "leaking", "label": "x"}\n{"text": "Maria", "text_b": "pump", "label": "y"}\n'
    data.write_text(rows, encoding="utf-8")
    done = run("audit", str(folder), "--data", str(data))
    assert done.returncode == 0 and "passed" in done.stdout and "a new head for x, y" in done.stderr
    if family == "bert":
        assert re.search(r"token_type_embeddings.weight +2×24 .* ok", done.stdout), "both types have tokens"


def test_the_command_names_what_it_cannot_use(tmp_path: Path) -> None:
    folder, data = directory(tmp_path / "model", "BertForSequenceClassification"), tmp_path / "records.csv"
    data.write_text(f"text,label\na,x\n{'pump ' * 200},y\n", encoding="utf-8")
    alike = tmp_path / "alike.csv"
    alike.write_text("text,label\na,x\nb,x\n", encoding="utf-8")
    for arguments, words in (
        (["audit", str(folder), "--data", str(data), "--max-length", "97"], "max_length = 97: this model reads 96 tokens"),
        (["audit", str(folder), "--data", str(alike)], "every record has the label 'x': there is nothing to learn"),
        (["audit", str(tmp_path), "--data", str(tmp_path / "none.tsv")], "none.tsv"),
        (["audit", str(tmp_path), "--data", "x.tsv", "--records", "0"], "--records must be at least 1"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert run("nonsense").returncode == 2
    for arguments in (["--help"], ["audit", "--help"]):
        done = run(*arguments)
        assert done.returncode == 0 and "Exit status: 0 done, 1 found something wrong, 2" in " ".join(done.stdout.split())


def test_the_command_never_ends_in_a_traceback(minilm: Path, tmp_path: Path) -> None:
    data = tmp_path / "records.tsv"
    data.write_text("text\tlabel\nworks like new\tschön\nbroke after a day\tbad\n", encoding="utf-8")
    arguments = ["audit", str(minilm), "--data", str(data), "--layers", "1", "--max-length", "8"]
    refused = run(*arguments, "--seed", "-1")
    assert refused.returncode == 2 and "seed must be an integer from 0" in refused.stderr and "Traceback" not in refused.stderr
    ascii_only = run(*arguments, environment={"PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0 and "384?384" in ascii_only.stdout and "Traceback" not in ascii_only.stderr
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as closed:
        done = subprocess.run([sys.executable, "-m", "minigrad", *arguments], stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and "BrokenPipe" not in done.stderr and "Traceback" not in done.stderr

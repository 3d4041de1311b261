"""Every head in every format: what transformers and PyTorch write, minigrad computes alike, and what minigrad writes, transformers does.

Weights are random; results are compared in float64, so that a weight in the wrong place cannot hide behind rounding.
`python -m pytest tests/oracle/test_formats_oracle.py -s` prints the table of docs/formats.md, with the largest error of each row.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_writer
from models.test_tf_names import ALL as TENSORFLOW_NAMES
from oracle.agreement import agree
from oracle.head_cases import KINDS, as_called, expected_outputs, inputs_for, others_of
from oracle.twins import HIDDEN, MINI, build, family_of, keys_of, quiet_transformers, results_of, torch, torched, transformers, used

import minigrad as mg
from minigrad.errors import WeightFileError
from minigrad.io import load_file
from minigrad.models.roberta import PUBLISHED_CLASSES

safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors, the `oracle` extra")
pytestmark = pytest.mark.oracle

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
SIZES = MINI | {"vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 20, "max_position_embeddings": 12}

READ = ("safetensors", "shards", "bfloat16", "`.bin`", "`.bin` shards", "TensorFlow", "gamma/beta", "other prefix")
WRITTEN = ("safetensors ", "shards ", "float16 ", "bfloat16 ")  # the blank tells them from those that are read
ROWS = {kind: (kind, "") for kind in KINDS} | {
    published + kind.removeprefix("Roberta"): (kind, published)
    for published in PUBLISHED_CLASSES.values()
    for kind in KINDS
    if kind.startswith("Roberta") and published != "Roberta"
}
"""Name in `architectures` → minigrad's class, and what theirs begins with if not as ours."""

NOT_IN_TENSORFLOW = ("BertForTokenClassification", "BertForMultipleChoice")
"""Heads that BERT's own release has no weights for."""

_cells: dict[str, dict[str, str]] = defaultdict(dict)
_errors: dict[str, float] = defaultdict(float)


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    with quiet_transformers():
        yield
    print(f"\nheads and formats against PyTorch {torch.__version__} and transformers {transformers.__version__}:\n")
    print("\n".join(table()))


def table() -> list[str]:
    columns = [*READ, *WRITTEN]
    lines = [f"| class | {' | '.join(column.strip() for column in columns)} | error |", "|---|" + "---|" * (len(columns) + 1)]
    for row in ROWS:
        cells = [_cells[row].get(column, "not run") for column in columns]
        lines.append(f"| `{row}` | {' | '.join(cells)} | {_errors[row]:.0e} |")
    return lines


def twins(row: str) -> tuple[Any, Any, dict[str, Any]]:
    """Ours (float64), theirs (float32) of the same random weights, and a ragged batch."""
    kind, published = ROWS[row]
    keys = keys_of(family_of(kind), SIZES, narrower=5)
    ours, theirs = build(kind, keys, 0, published=published or None, **others_of(kind, "", 3))
    return ours, theirs.float(), inputs_for(kind, np.random.default_rng(1), ours.config, 3, 7)


def compare(row: str, form: str, ours: Any, theirs: Any, feed: dict[str, Any]) -> None:
    """Every result, in float64; the cell of the table is filled."""
    kind = ROWS[row][0]
    inputs = as_called(kind, feed)
    with torch.no_grad():
        results = results_of(theirs.double()(**torched(inputs)))
    output = ours.to("float64")(**inputs)
    for name, wanted in expected_outputs(kind, results, feed, is_packed=False).items():
        _errors[row] = max(_errors[row], agree(f"{row} {form}", getattr(output, name).numpy(), wanted, HIDDEN))
    _cells[row][form] = "✓"


# ---------------------------------------------------------------- what others write
def write(form: str, theirs: Any, folder: Path) -> None:
    """Save transformers' model into `folder` in a published form."""
    if form == "bfloat16":
        theirs.to(torch.bfloat16)  # and later, rounded, to float64
    theirs.save_pretrained(folder, max_shard_size="4KB" if "shards" in form else "5GB")
    state = dict(theirs.state_dict())
    if form == "`.bin`":
        replace_by_bin(folder, state)  # also the second name of a tied decoder
    elif form == "`.bin` shards":
        for path in sorted(folder.glob("*.safetensors")):
            shard = {name: state[name].clone() for name in load_file(path)}
            torch.save(shard, str(path).replace("model", "pytorch_model").replace(".safetensors", ".bin"))
            path.unlink()
        index = folder / "model.safetensors.index.json"
        text = index.read_text(encoding="utf-8").replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text, encoding="utf-8")
        index.unlink()
    elif form == "gamma/beta":
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in state.items()
        }
        assert any(name.endswith("LayerNorm.gamma") for name in old)
        prefix = "" if "embeddings.word_embeddings.weight" in state else theirs.base_model_prefix + "."
        replace_by_bin(folder, old | {f"{prefix}embeddings.position_ids": torch.arange(12)[None]})
    elif form == "other prefix":
        prefix = theirs.base_model_prefix + "."
        if not any(name.startswith(prefix) for name in state):
            replace_by_bin(folder, {prefix + name: tensor for name, tensor in state.items()})
        else:
            replace_by_bin(folder, {name.removeprefix(prefix): tensor for name, tensor in state.items()})


def replace_by_bin(folder: Path, state: dict[str, Any]) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


@pytest.mark.parametrize("form", [form for form in READ if form != "TensorFlow"])
@pytest.mark.parametrize("row", ROWS)
def test_read(row: str, form: str, tmp_path: Path) -> None:
    _, theirs, feed = twins(row)
    write(form, theirs, tmp_path)
    ours = mg.models.load(tmp_path)
    assert type(ours).__name__ == ROWS[row][0]
    assert not ours.load_report.newly_initialised
    extra = set(ours.load_report.ignored) - {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    extra -= {"lm_head.decoder.weight", "lm_head.decoder.bias", "vocab_projector.weight"}  # tied, and equal
    assert all(name.endswith("position_ids") for name in extra), extra
    assert bool(ours.load_report.renamed) == (form in ("gamma/beta", "other prefix"))
    compare(row, form, ours, theirs, feed)


@pytest.mark.parametrize("row", ROWS)
def test_read_tensorflow(row: str, tmp_path: Path) -> None:
    """BERT's own release: variables by TensorFlow's names, training state, and a bert_config.json that knows no labels."""
    if not row.startswith("Bert"):
        _cells[row]["TensorFlow"] = "—"  # never published in this form
        return
    source = "BertForPreTraining" if row in NOT_IN_TENSORFLOW else row
    _, theirs, feed = twins(source)
    state = {
        name if name.startswith(("bert.", "cls.", "classifier.", "qa_outputs.")) else f"bert.{name}": p
        for name, p in theirs.state_dict().items()
    }
    arrays: dict[str, Any] = {"global_step": np.int64(1000)}
    for variable, (name, transposed) in TENSORFLOW_NAMES.items():
        if name in state:
            array = state.pop(name).numpy()
            arrays[variable] = array.T if transposed else array
            arrays[f"{variable}/adam_m"] = arrays[f"{variable}/adam_v"] = np.zeros_like(arrays[variable])
    assert set(state) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}, "all but what is tied has a variable"
    tf_writer.save(tmp_path / "bert_model.ckpt", arrays)
    said = {key: getattr(theirs.config, key) for key in [*SIZES, "hidden_act", "type_vocab_size", "initializer_range", "is_decoder"]}
    (tmp_path / "bert_config.json").write_text(json.dumps(said), encoding="utf-8")
    ours = getattr(mg.models, row).from_pretrained(tmp_path, num_labels=theirs.config.num_labels)
    if row in NOT_IN_TENSORFLOW:
        assert ours.load_report.newly_initialised == ("classifier.weight", "classifier.bias")
        _cells[row]["TensorFlow"] = "new head"
    else:
        assert not ours.load_report.newly_initialised
        compare(row, "TensorFlow", ours, theirs, feed)


# ---------------------------------------------------------------- what we write
@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("row", ROWS)
def test_write(row: str, form: str, tmp_path: Path) -> None:
    ours, theirs, feed = twins(row)
    dtype = form.strip() if "float" in form else None
    ours.to("float32").save_pretrained(tmp_path, max_shard_size="4KB" if form == "shards " else "5GB", dtype=dtype)
    assert (tmp_path / "model.safetensors.index.json").exists() == (form == "shards ")
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (said["architectures"], said["model_type"]) == ([row], theirs.config.model_type)
    assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is type(theirs.config)
    read, notes = type(theirs).from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(notes.values()), notes  # nothing missing, unexpected, mis-shaped
    assert read.dtype == getattr(torch, dtype or "float32"), "config.json says how the weights are stored"
    saved, again = ours.state_dict(), mg.models.load(tmp_path)
    for name, parameter in used(read).items():
        assert torch.equal(parameter, torch.from_numpy(np.array(saved[name])).to(parameter.dtype)), f"{name} is rounded as PyTorch rounds"
    compare(row, form, again if dtype else ours, read.eval(), feed)


# ---------------------------------------------------------------- the page
def test_the_page_shows_this_table() -> None:
    """Rows, columns and every cell but the errors, which differ from run to run by rounding."""
    if any(len(_cells[row]) < len(READ) + len(WRITTEN) for row in ROWS):
        pytest.skip("needs the results of all tests above, which were not all run, or failed")
    text = PAGE.read_text(encoding="utf-8").splitlines()
    for line in table():
        assert any(written.rpartition(" | ")[0] == line.rpartition(" | ")[0] for written in text), line


OTHERS = ["tf_model.h5", "flax_model.msgpack", "model.onnx", "rust_model.ot", "model.gguf", "adapter_model.safetensors", "saved_model.pb"]


@pytest.mark.parametrize("name", OTHERS)
def test_files_that_have_no_reader(name: str, tmp_path: Path) -> None:
    """A directory of these alone is refused with the names that were looked for, and the page says so."""
    twins("BertModel")[1].config.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(WeightFileError, match=r"model\.safetensors") as caught:
        mg.models.load(tmp_path, head="base")
    assert caught.value.code == "missing-file"
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")


WEIGHT = "encoder.layer.0.output.dense.weight"
REFUSED: dict[str, tuple[str, bool, Any]] = {
    "integers": ("weights-mismatch", False, lambda w: (100 * w).to(torch.int8)),
    "another shape": ("weights-mismatch", False, lambda w: w[:, :-1].clone()),
    "eight bits": ("unsupported-dtype", False, lambda w: w.to(torch.float8_e4m3fn)),
    "beyond float32": ("value-overflow", False, lambda w: w.double() + 1e300),
    "sparse": ("unsupported-tensor-kind", True, lambda w: w.to_sparse()),
    "expanded": ("size-exceeds-storage", True, lambda w: w[:1, :1].clone().expand(w.shape)),
    "a whole layer": ("forbidden-global", True, lambda w: torch.nn.Linear(2, 2)),
    "numbers": ("not-a-state-dict", True, lambda w: 3),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_are_refused(case: str, tmp_path: Path) -> None:
    """What a user may come across; broken and hostile files are tests/io's."""
    code, in_bin, change = REFUSED[case]
    _, theirs, _ = twins("BertModel")
    state = dict(theirs.state_dict())
    state[WEIGHT] = change(state[WEIGHT])
    theirs.config.save_pretrained(tmp_path)
    if in_bin:
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        safetensors.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightFileError) as caught:
        mg.models.load(tmp_path, head="base")
    assert caught.value.code == code
    assert f"`{code}`" in PAGE.read_text(encoding="utf-8")

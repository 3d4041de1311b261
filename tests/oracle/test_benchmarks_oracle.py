"""The opponents of the benchmarks do the same work as minigrad, and as transformers would: else the comparison says nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import directory
from train.runs import records

torch = pytest.importorskip("torch", reason="needs PyTorch: the `oracle` extra")
pytest.importorskip("transformers", reason="needs transformers: the `oracle` extra")

pytestmark = pytest.mark.oracle

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def within_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts are run from their folder, and are no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_batches_are_grouped_as_transformers_groups_them() -> None:
    from harness.work import WINDOW, draw_texts, grouped_batches
    from transformers.trainer_pt_utils import get_length_grouped_indices

    texts = draw_texts("mixed", 4 * WINDOW * 4, np.random.default_rng(0))
    lengths = [len(text) for text in texts]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()  # what the same seed gives the library
    theirs = get_length_grouped_indices(lengths, 4, generator=torch.Generator().manual_seed(0))
    ours = [len(text) for batch in grouped_batches([texts[i] for i in order], 4) for text in batch]
    differ = [i for i, (one, other) in enumerate(zip(ours, (lengths[j] for j in theirs), strict=True)) if one != other]
    assert len(differ) <= 2  # it puts the longest text of all first, in exchange for another window's longest


@pytest.mark.parametrize("head", ["sequence", "token"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_sides_have_the_same_loss_with_the_same_weights(head: str, attention: str) -> None:
    from harness.ours import Minigrad
    from harness.theirs import Torch
    from harness.work import Size, make_work

    import minigrad as mg

    work = make_work(Size(2, 16, 2, 32, 3), head, "mixed", count=1)
    mine, theirs = Minigrad(work, 1), Torch(work, attention, 128, compiled=False)
    theirs.plain.load_state_dict({name: torch.tensor(np.asarray(array)) for name, array in mine.model.state_dict().items()})
    part = mine.batches[0]
    with mine.model.evaluating(), mg.no_grad():
        wanted = float(mine.objective.loss(mine.model, part, part).item())
    assert loss_of(theirs) == pytest.approx(wanted, rel=1e-5)  # float32 on both sides
    for contender in (mine, theirs):
        assert contender.train() > 0 and contender.infer() > 0
        contender.close()
    assert loss_of(theirs) != pytest.approx(wanted, rel=1e-7)


def loss_of(theirs: Any) -> float:
    """Of the first batch, without dropout."""
    theirs.plain.eval()
    with torch.no_grad():
        return float(theirs.plain(**theirs.batches[0]).loss.item())


@pytest.mark.parametrize("lengths", ["16", "mixed"])
def test_what_is_compiled_on_a_gpu_is_compiled_once_and_has_a_mask_only_where_something_is_masked(
    lengths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second compilation may last longer than the benchmark; under a mask, one of nothing too, sdpa cannot use flash attention."""
    from harness.theirs import Torch
    from harness.theirs_gpu import UNMASKED, TorchOnDevice
    from harness.work import Size, make_work

    graphs, compile_ = [], torch.compile

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, dynamic, mode: compile_(model, dynamic=dynamic, backend=backend))
    work = make_work(Size(2, 16, 2, 32, 3), "sequence", lengths, count=3)
    theirs = TorchOnDevice(work, "sdpa", "yes", "cpu", "float32")
    assert theirs.plain.config._attn_implementation == (UNMASKED if lengths == "16" else "sdpa")
    eager = TorchOnDevice(work, "sdpa", "no", "cpu", "float32")
    assert loss_of(eager) == pytest.approx(loss_of(Torch(work, "sdpa", None, compiled=False)), rel=1e-6)  # the same seed
    try:
        assert theirs.train() > 0 and len(graphs) == 1
        masks = {name for name in theirs.batches[0] if "mask" in name}
        [given] = {node.kwargs["attn_mask"] is not None for node in graphs[0].graph.nodes if "scaled_dot_product" in str(node.target)}
        assert (masks, given) == ((set(), False) if lengths == "16" else ({"attention_mask"}, True))
        assert theirs.infer() > 0
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("pad", ["longest", "grouped"])
@pytest.mark.parametrize("task", ["texts", "words"])
def test_the_script_of_pytorch_learns(task: str, pad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    if task == "words":
        pytest.importorskip("seqeval", reason="needs seqeval: the `oracle` extra")
    import finetune_torch

    command = ["finetune_torch.py", "--model", str(directory(tmp_path / "model", "BertModel")), "--threads", "1", "--pad", pad]
    for split, (count, seed) in {"train": (96, 1), "dev": (16, 2), "test": (16, 3)}.items():
        rows = [as_words(row) if task == "words" else {"text": row["text"], "label": row["label"]} for row in records(count, seed)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        command += [f"--{split}", str(tmp_path / f"{split}.jsonl")]
    monkeypatch.setattr(sys, "argv", [*command, "--epochs", "6", "--lr", "1e-2", "--batch", "8", "--max-length", "32"])
    finetune_torch.main()
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    (dev,), (test,) = scores["dev"].values(), scores["test"].values()
    assert dev > 0.7 and test > 0.7  # half of the texts, and no entity, are guessed right by chance


def as_words(row: dict[str, Any]) -> dict[str, Any]:
    tags = {"maria": "B-PER", "berlin": "B-LOC"}
    words = row["text"].split()
    return {"tokens": words, "tags": [tags.get(word, "O") for word in words]}

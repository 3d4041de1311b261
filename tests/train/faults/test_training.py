"""What may happen to a training, from signals and full pipes to changed data, each with a test that carries its number."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train.runs import child, digest, last_digest, log_of, run_folder, save_config
from train.storm import storm

import minigrad as mg
from minigrad.data.loader import Batch
from minigrad.errors import CheckpointError, DataError, NonFiniteError
from minigrad.tensor import Tensor
from minigrad.train import stepping
from minigrad.train.config import RunConfig
from minigrad.train.run import Run


def whole(folder: Path) -> str:
    """The digest of the weights after the run without any fault, in a folder of its own beside it."""
    config = run_folder(folder)
    run = Run(replace(config, output=replace(config.output, directory=str(folder / "whole"))))
    run.trainer.fit()
    return digest(run.model)


def waited_for(folder: Path, lines: int) -> None:
    """Wait until the log has so many lines."""
    log, deadline = folder / "run" / "log.jsonl", time.monotonic() + 60
    while not (log.exists() and len(log.read_bytes().splitlines()) >= lines):
        assert time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.002)


def notices(folder: Path) -> list[str]:
    return [event["message"] for event in log_of(folder) if event["event"] == "notice"]


# ---------------------------------------------------------------- signals
def test_F02_killed_at_random_times(tmp_path: Path) -> None:
    kills, ends = storm(tmp_path, kills=5, seed=int.from_bytes(os.urandom(2), "little"))
    assert kills >= 5 and ends >= 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["F10", "F11"])
def test_F10_F11_a_polite_signal_lets_the_step_finish_and_saves(tmp_path: Path, number: int, status: int) -> None:
    expected = whole(tmp_path)
    config = save_config(tmp_path, run_folder(tmp_path, save_every=1000))
    process = child(tmp_path, "train", str(config), stderr=subprocess.PIPE)
    waited_for(tmp_path, 3)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == status
    assert b"go on with: python -m minigrad resume" in told and b"Traceback" not in told
    step = log_of(tmp_path)[-1]
    assert step["reason"] == "interrupted" and f"step-{step['step']:08d}" in os.listdir(tmp_path / "run" / "checkpoints")
    assert child(tmp_path, "resume", "run").wait(timeout=60) == 0
    assert last_digest(tmp_path) == expected
    steps = [event["step"] for event in log_of(tmp_path) if event["event"] == "step"]
    assert steps == list(range(1, 13)), "each step stands in the log once"


def test_F11_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(run_folder(tmp_path))
    plain = run.trainer.objective.loss

    def pressed_twice(model: Any, part: Batch, of: Batch) -> Tensor:
        if run.trainer.at.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return plain(model, part, of)

    monkeypatch.setattr(run.trainer.objective, "loss", pressed_twice)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    assert run.trainer.store is not None and run.trainer.store.latest().step == 5, "what was saved before is whole"  # type: ignore[union-attr]


def test_F13_stopped_and_continued(tmp_path: Path) -> None:
    expected = whole(tmp_path)
    process = child(tmp_path, "train", str(save_config(tmp_path, run_folder(tmp_path))))
    waited_for(tmp_path, 3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=60) == 0
    assert last_digest(tmp_path) == expected


# ---------------------------------------------------------------- numbers that are none
def spoiled(run: Run, steps: set[int], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of these steps becomes NaN, or stays what it is with an infinite gradient."""
    plain = run.trainer.objective.loss

    def loss(model: Any, part: Batch, of: Batch) -> Tensor:
        value = plain(model, part, of)
        if run.trainer.at.step + 1 not in steps:
            return value
        if how == "gradient":
            weight = model.classifier.weight
            return value + (mg.functional.sqrt(weight.sum() * 0.0) if how == "gradient" else 0.0)
        return value * float(how)

    monkeypatch.setattr(run.trainer.objective, "loss", loss)


@pytest.mark.filterwarnings(
    "ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning"
)  # the infinity is made on purpose
@pytest.mark.parametrize("how", ["nan", "inf", "gradient"], ids=["F14-nan", "F14-inf", "F15"])
def test_F14_F15_a_loss_or_gradient_that_is_no_number_stops(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(run_folder(tmp_path))
    spoiled(run, {6}, how, monkeypatch)
    with pytest.raises(NonFiniteError) as caught:
        run.fit()
    message = str(caught.value)
    assert "step 6" in message and "rows" in message and "the gradient of " in message, message
    assert ("the gradient of classifier.weight" in message) == (how == "gradient"), "the first one that is not finite"
    rows = [int(row) for row in list(run.examples["train"].loader.epoch(1))[1].rows]
    assert f"rows {', '.join(map(str, rows))}" in message
    assert digest(run.model) == last_digest(tmp_path), "weights are those after step 5, which was saved"
    assert all(count == 5 for count in run.trainer.optimizer.steps.values())


def test_F14_or_leaves_the_update_out_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(run_folder(tmp_path, on_nonfinite="skip"))
    spoiled(run, {2, 5, 7}, "nan", monkeypatch)
    assert run.trainer.fit().step == 12
    assert all(count == 9 for count in run.trainer.optimizer.steps.values())
    assert sum("left out" in message for message in notices(tmp_path)) == 3
    again = Run(replace(run.config, output=replace(run.config.output, directory=str(tmp_path / "other"))))
    spoiled(again, {2, 5, 7, 8}, "nan", monkeypatch)
    with pytest.raises(NonFiniteError, match="step 8"):
        again.trainer.fit()


# ---------------------------------------------------------------- memory
def test_F16_memory_that_does_not_suffice_halves_the_parts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_folder(tmp_path)
    halves = Run(replace(config, training=replace(config.training, parts=2), output=replace(config.output, directory=str(tmp_path / "2"))))
    halves.trainer.fit()
    run = Run(config)
    plain = run.trainer.objective.loss

    def hungry(model: Any, part: Batch, of: Batch) -> Tensor:
        if len(part.tokens.packing) > 9:  # twelve in a batch
            raise MemoryError("1 GiB for an array")
        return plain(model, part, of)

    monkeypatch.setattr(run.trainer.objective, "loss", hungry)
    run.trainer.fit()
    assert digest(run.model) == digest(halves.model)
    assert [message for message in notices(tmp_path) if "2 parts" in message]

    def starving(model: Any, part: Batch, of: Batch) -> Tensor:
        raise MemoryError("1 GiB for an array")

    again = Run(replace(config, output=replace(config.output, directory=str(tmp_path / "3"))))
    monkeypatch.setattr(again.trainer.objective, "loss", starving)
    before = digest(again.model)
    with pytest.raises(MemoryError, match=r"tokens in 2 parts do not fit.*1 GiB"):
        again.trainer.fit()
    assert digest(again.model) == before


def test_what_evaluations_keep_is_given_up_before_steps_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_folder(tmp_path)
    undisturbed = Run(replace(config, output=replace(config.output, directory=str(tmp_path / "undisturbed"))))
    undisturbed.trainer.fit()
    run = Run(config)
    plain, kept = run.trainer.objective.loss, [True]

    def hungry(model: Any, part: Batch, of: Batch) -> Tensor:
        if kept[0] and run.trainer.at.step == 5:
            raise MemoryError("1 GiB for an array")
        return plain(model, part, of)

    def forget_graphs() -> bool:
        had, kept[0] = kept[0], False
        return had

    monkeypatch.setattr(run.trainer.objective, "loss", hungry)
    monkeypatch.setattr(stepping, "forget_graphs", forget_graphs)
    run.trainer.fit()
    assert not kept[0] and digest(run.model) == digest(undisturbed.model)
    assert run.trainer.at.parts == 1 and not notices(tmp_path)


def test_F17_a_limit_of_the_address_space(tmp_path: Path) -> None:
    """The step is computed in halves, or there is one line about it and status 2; what was saved before is whole."""
    config = run_folder(tmp_path)
    Run(replace(config, training=replace(config.training, steps=2))).trainer.fit()
    before = last_digest(tmp_path)
    long = [json.dumps({"text": "pump " * 60, "label": ("thing", "person")[i % 2]}) for i in range(3000)]
    (tmp_path / "train.jsonl").write_text("\n".join(long) + "\n", encoding="utf-8")
    sized = replace(config, data=replace(config.data, batch_size=3000, max_length=96), training=replace(config.training, steps=1))
    path = save_config(tmp_path, replace(sized, output=replace(sized.output, directory=str(tmp_path / "big"))))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (700 * 2**20, 700 * 2**20))

    process = child(tmp_path, "train", str(path), stderr=subprocess.PIPE, preexec_fn=limited)
    _, told = process.communicate(timeout=120)
    assert process.returncode in (0, 2) and b"Traceback" not in told, told.decode()
    said = b"computed in 2 parts" if process.returncode == 0 else b"do not fit into the memory"  # how much NumPy itself takes varies
    assert said in told, told.decode()
    assert last_digest(tmp_path) == before


# ---------------------------------------------------------------- data
def with_line(folder: Path, line: bytes, at: int = 5) -> None:
    path = folder / "train.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:at], line, *lines[at:]]) + b"\n")


BAD_ROWS = {
    "not UTF-8": b'{"text": "caf\xe9", "label": "thing"}',
    "no text": b'{"label": "thing"}',
    "empty": b'{"text": "  ", "label": "thing"}',
    "NUL": b'{"text": "a\\u0000b", "label": "thing"}',
    "no JSON": b"{text: 1}",
    "no label": b'{"text": "pump"}',
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_F18_a_bad_row_is_named_or_left_out(tmp_path: Path, case: str) -> None:
    config = run_folder(tmp_path, steps=1)
    with_line(tmp_path, BAD_ROWS[case])
    with pytest.raises(DataError, match=r"train\.jsonl:6: "):
        Run(config)
    run = Run(replace(config, data=replace(config.data, on_bad_row="skip")))
    assert len(run.examples["train"].records) == 48
    run.fit()
    assert any("train.jsonl:6" in message for message in notices(tmp_path)), "left out, and said so"


def test_F18_too_many_bad_rows_are_a_wrong_file(tmp_path: Path) -> None:
    config = run_folder(tmp_path, steps=1)
    for _ in range(4):
        with_line(tmp_path, b"{}")
    with pytest.raises(DataError) as caught:
        Run(replace(config, data=replace(config.data, on_bad_row="skip", max_skipped=3)))
    assert caught.value.code == "too-many-skipped"


@pytest.mark.parametrize("label", ['"plant"', "1.5", "null", "[]"])
def test_F19_a_label_that_is_none(tmp_path: Path, label: str) -> None:
    config = run_folder(tmp_path)
    lines = (tmp_path / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    lines[3] = f'{{"text": "pump", "label": {label}}}'
    (tmp_path / "dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"dev\.jsonl:4: "):
        Run(config)


def test_F20_sizes_of_data(tmp_path: Path) -> None:
    config = run_folder(tmp_path, epochs=2)
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        Run(replace(config, data=replace(config.data, train=str(tmp_path / "empty.jsonl"))))
    assert caught.value.code == "empty-file"
    (tmp_path / "one.jsonl").write_text('{"text": "pump", "label": "thing"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="nothing to learn"):
        Run(replace(config, data=replace(config.data, train=str(tmp_path / "one.jsonl"))))
    for size, steps in ((1000, 2), (48, 2), (47, 4), (1, 96)):
        output = replace(config.output, directory=str(tmp_path / f"run-{size}"))
        run = Run(replace(config, data=replace(config.data, batch_size=size, dev=None, test=None), output=output))
        assert run.trainer.fit().step == steps


def test_F21_a_batch_without_a_single_label(tmp_path: Path) -> None:
    """It teaches nothing, changes nothing, and is counted."""
    run = Run(run_folder(tmp_path, "token-classification", epochs=1))
    first = next(run.examples["train"].loader.epoch(0)).rows
    for row in first:
        run.examples["train"].loader.token_labels[row][:] = -100  # type: ignore[index]
    before = digest(run.model)
    seen = []
    run.trainer.callbacks.append(lambda event: seen.append(digest(run.model)) if event["event"] == "step" else None)
    assert run.trainer.fit().step == 4
    assert seen[0] == before and len(set(seen)) == 4
    assert any("nothing is learned" in message for message in notices(tmp_path))


# ---------------------------------------------------------------- resuming with something else
def interrupted(folder: Path, steps: int, **training: Any) -> RunConfig:
    """A run of which `steps` steps are done and saved."""
    config = run_folder(folder, **training)
    run = Run(config)

    def stop(event: Any) -> None:
        if event["event"] == "step" and event["step"] == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    run.trainer.callbacks.append(stop)
    assert run.fit().exit_code == 143
    return config


def test_F22_data_that_changed_are_refused(tmp_path: Path) -> None:
    config = interrupted(tmp_path, 5)
    path = tmp_path / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("pump", "well", 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"data: .* then, .* now") as caught:
        Run(config).fit(resume=True)
    assert caught.value.code == "changed"
    assert Run(config).fit(resume=True, force=True).step == 12
    assert any("although it changed: data" in message for message in notices(tmp_path))


def test_F23_settings_that_changed_are_shown(tmp_path: Path) -> None:
    config = interrupted(tmp_path, 5)
    other = replace(config, training=replace(config.training, lr=0.01, epochs=4))
    with pytest.raises(CheckpointError) as caught:
        Run(other).fit(resume=True)
    assert "training.lr: 0.001 then, 0.01 now" in str(caught.value) and "training.epochs: 3 then, 4 now" in str(caught.value)
    frozen = replace(config, training=replace(config.training, freeze=("bert.embeddings",)))
    with pytest.raises(CheckpointError, match=r"training\.freeze"):
        Run(frozen).fit(resume=True)
    assert Run(other).fit(resume=True, force=True).step == 16


def test_F24_a_clock_that_jumps_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(tmp_path)
    real, jumps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * next(jumps))
    config = interrupted(tmp_path, 5)
    os.utime(tmp_path / "run" / "checkpoints" / "step-00000005", (0, 0))
    assert Run(config).fit(resume=True).step == 12
    assert last_digest(tmp_path) == expected
    assert all(event["seconds_left"] >= 0 for event in log_of(tmp_path) if event["event"] == "step")


def test_F25_another_number_of_threads_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = interrupted(tmp_path, 5)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    Run(config).fit(resume=True)
    assert any("not to the last bit" in message and "blas_threads" in message for message in notices(tmp_path))


@pytest.mark.parametrize("step", [1, 3, 4, 7, 8, 11])
def test_F26_resumed_within_and_at_the_ends_of_epochs(tmp_path: Path, step: int) -> None:
    expected = whole(tmp_path)
    config = interrupted(tmp_path, step)
    assert Run(config).fit(resume=True).step == 12
    assert last_digest(tmp_path) == expected


@pytest.mark.parametrize("training", [{"ema": 0.9}, {"layer_decay": 0.8}, {"parts": 2, "clip": 0.1}, {"schedule": "cosine", "workers": 2}])
def test_F26_every_state_is_part_of_it(tmp_path: Path, training: dict[str, Any]) -> None:
    run = Run(run_folder(tmp_path, **training))
    run.trainer.fit()
    expected, best = last_digest(tmp_path), run.trainer.at.best
    other = tmp_path / "other"
    config = interrupted(other, 5, **training)
    again = Run(config)
    again.fit(resume=True)
    assert last_digest(other) == expected and again.trainer.at.best == best


def test_F26_resumed_before_the_first_and_after_the_last_step(tmp_path: Path) -> None:
    config = run_folder(tmp_path)
    first = Run(config).fit(resume=True)
    assert first.step == 12 and any("begins anew" in message for message in notices(tmp_path))
    before = last_digest(tmp_path)
    assert Run(config).fit(resume=True).step == 12
    assert last_digest(tmp_path) == before


# ---------------------------------------------------------------- workers and streams
def test_F27_a_worker_that_dies_is_an_error_and_no_hang(tmp_path: Path) -> None:
    run = Run(run_folder(tmp_path, workers=2))

    def kill_a_child(event: Any) -> None:
        if event["event"] == "step" and event["step"] == 3:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
            os.kill(int(children[0]), signal.SIGKILL)

    run.trainer.callbacks.append(kill_a_child)
    started = time.monotonic()
    with pytest.raises(mg.errors.MinigradError, match="worker"):
        run.trainer.fit()
    assert time.monotonic() - started < 30, "raised, and did not hang (5 seconds, and a busy machine's own)"
    assert run.trainer.store is not None and run.trainer.store.latest().step == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["closed stderr", "no reader", "full stdout"])
def test_F28_output_that_nobody_reads(tmp_path: Path, how: str) -> None:
    expected = whole(tmp_path)
    path = str(save_config(tmp_path, run_folder(tmp_path)))
    if how == "closed stderr":
        process = child(tmp_path, "train", path, stderr=None, preexec_fn=lambda: os.close(2))
    elif how == "no reader":
        process = child(tmp_path, "train", path, stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.close()
    else:
        full = os.open("/dev/full", os.O_WRONLY)
        process = child(tmp_path, "train", path, stdout=full)
        os.close(full)
    process.wait(timeout=60)
    assert process.returncode == (2 if how == "full stdout" else 0), "only what was asked for on standard output could not be said"
    assert last_digest(tmp_path) == expected
    assert np.isfinite([event["loss"] for event in log_of(tmp_path) if event["event"] == "step"]).all()

"""The commands info, convert and predict: what they print and write, and that what cannot be done is one line and exit status 2.

`audit` is tested in test_audit.py.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import LABELS, TEXTS, TOKENS, directory
from support import NO_GPU, probed

import minigrad as mg
from minigrad.cli import COMMANDS, main
from minigrad.data import progress
from minigrad.errors import ArgumentError
from minigrad.io import SafetensorsFile, load_file
from minigrad.pipeline import base


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that says why."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"minigrad {arguments[0]}: "), err
    return err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"minigrad {mg.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert "Exit status: 0 done, 1 found something wrong, 2 could not be run" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["predict", "x"], ["convert", "x"], ["info", "x", "--head", "nonsense"]])
def test_wrong_usage_has_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2


def test_the_module_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "minigrad", "info", "/nowhere"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


# ---------------------------------------------------------------- info
def test_info_reads_headers_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = directory(tmp_path, "BertForTokenClassification", id2label=LABELS)

    def forbidden(*_: Any) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(SafetensorsFile, "read_into", forbidden)
    found = printed(capsys, "info", folder)
    with open(folder / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    numbers = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    for words in (
        "family      bert",
        "class       BertForTokenClassification",
        f"parameters  {numbers:,}",
        f"read as     float32 ({numbers:,} numbers)",
        f"tokenizer   WordPiece, {len(TOKENS)} tokens, texts of up to 96 tokens",
        "model.safetensors  <- weights read from here",
        "39 parameters loaded",
    ):
        assert words in found, found
    assert "newly initialised, to be trained: 2" in printed(capsys, "info", folder, "--head", "sequence-classification")


def test_info_of_minilm(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "info", minilm)
    assert "class       BertModel" in found and "22,713,216" in found and "103 parameters loaded" in found


def test_info_says_what_is_missing(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = directory(tmp_path / "model", "BertModel")
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    assert "tokenizer   none that can be used: " in printed(capsys, "info", folder)
    (folder / "model.safetensors").unlink()
    assert "holds no weights; looked for model.safetensors" in refused(capsys, "info", folder)
    (folder / "config.json").unlink()
    assert "config.json: the file does not exist" in refused(capsys, "info", folder)
    assert "names no architectures: pass head" in refused(capsys, "info", shared_data / "ckpt_tf_tiny")
    assert "class       BertForPreTraining" in printed(capsys, "info", shared_data / "ckpt_tf_tiny", "--head", "pretraining")


# ---------------------------------------------------------------- convert
def test_convert_keeps_every_number_and_the_tokenizer(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = shared_data / "tiny_random_bert_ner", tmp_path / "new" / "model"
    found = printed(capsys, "convert", source, target)
    assert "23 parameters loaded" in found and f"{target}: BertForTokenClassification of 10,185 parameters as float32" in found
    before, after = mg.models.load(source), mg.models.load(target)
    assert after.config.id2label == before.config.id2label
    for name, array in before.state_dict().items():
        np.testing.assert_array_equal(after.state_dict()[name], array)
    texts = ["a Text, with words"]
    ids = [mg.data.Tokenizer.from_pretrained(folder).encode(texts)[0].ids.tolist() for folder in (source, target)]
    assert ids[0] == ids[1]


def test_convert_of_a_tensorflow_checkpoint(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shared_data / "ckpt_tf_tiny"
    assert "pass head" in refused(capsys, "convert", source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "renamed: 46" in printed(capsys, "convert", source, tmp_path / "new", "--head", "pretraining")
    assert "bert.encoder.layer.0.attention.self.query.weight" in load_file(tmp_path / "new" / "model.safetensors")
    assert type(mg.models.load(tmp_path / "new")).__name__ == "BertForPreTraining"


def test_convert_to_halves_and_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = directory(tmp_path / "source", "BertForMaskedLM")
    printed(capsys, "convert", source, tmp_path / "half", "--dtype", "bfloat16", "--max-shard-size", "10KB")
    assert (tmp_path / "half" / "model.safetensors.index.json").exists()
    rounded, exact = mg.models.load(tmp_path / "half"), mg.models.load(source)
    for name, array in exact.state_dict().items():
        np.testing.assert_allclose(rounded.state_dict()[name], array, rtol=2**-8)  # bfloat16 has 8 significant bits
    assert '"bfloat16"' in (tmp_path / "half" / "config.json").read_text(encoding="utf-8")
    assert "stored as   'bfloat16'" in printed(capsys, "info", tmp_path / "half")


def test_convert_keeps_a_sentence_encoder_one(minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (minilm / "modules.json").exists():
        pytest.skip("this copy of MiniLM was fetched without modules.json, and no source was there to complete it")
    printed(capsys, "convert", minilm, tmp_path / "new")
    ours, theirs = (mg.models.SentenceEncoder.from_pretrained(folder).encode(TEXTS) for folder in (tmp_path / "new", minilm))
    np.testing.assert_array_equal(ours, theirs)


def test_convert_leaves_out_a_pooler_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = directory(tmp_path / "source", "BertForMaskedLM")
    assert "left out, since SRC has none: the pooler" in printed(capsys, "convert", source, tmp_path / "new", "--head", "base")
    assert not [name for name in load_file(tmp_path / "new" / "model.safetensors") if "pooler" in name]


def test_convert_refuses_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = directory(tmp_path / "source", "BertModel"), tmp_path / "new"
    assert "DST is SRC" in refused(capsys, "convert", source, source)
    assert "does not hold 'classifier.weight'" in refused(capsys, "convert", source, target, "--head", "token-classification")
    assert "shard size" in refused(capsys, "convert", source, target, "--max-shard-size", "much")
    (source / "tokenizer.json").write_text("{", encoding="utf-8")
    assert "tokenizer.json" in refused(capsys, "convert", source, target)
    assert not target.exists()
    target.write_text("a file", encoding="utf-8")
    (source / "tokenizer.json").unlink()
    assert f"DST: {target} is a file: name a directory" in refused(capsys, "convert", source, target)


# ---------------------------------------------------------------- predict
@pytest.mark.parametrize(
    ("task", "kind", "options"),
    [
        ("text-classification", "BertForSequenceClassification", []),
        ("text-classification", "BertForSequenceClassification", ["--top-k", "2"]),
        ("token-classification", "BertForTokenClassification", ["--aggregation", "first"]),
        ("fill-mask", "BertForMaskedLM", ["--top-k", "3"]),
        ("question-answering", "BertForQuestionAnswering", ["--question", "Who?"]),
        ("feature-extraction", "BertModel", ["--max-length", "9"]),
    ],
)
def test_predict_prints_what_the_pipeline_gives(
    task: str, kind: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = directory(tmp_path / "model", kind, id2label=LABELS)
    texts = [f"{text} [MASK]" for text in TEXTS]
    lines = [json.loads(line) for line in printed(capsys, "predict", folder, "--task", task, *options, "--text", *texts).splitlines()]
    chosen = {"top_k": int(options[1])} if "--top-k" in options else {}
    chosen |= {"aggregation_strategy": "first"} if task == "token-classification" else {}
    predict = mg.pipeline(task, folder, max_length=9 if "--max-length" in options else None, workers="auto", **chosen)
    expected = predict(["Who?"] * len(texts), texts) if task == "question-answering" else predict(texts)
    for line, text, wanted in zip(lines, texts, expected, strict=True):
        assert line == {"text": text, "prediction": wanted.tolist() if isinstance(wanted, np.ndarray) else wanted}
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": text, "question": "Who?"}) + "\n" for text in texts), encoding="utf-8"
    )
    output = tmp_path / "out.jsonl"
    assert printed(capsys, "predict", folder, "--task", task, *options, "--data", tmp_path / "texts.jsonl", "--output", output) == ""
    assert [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()] == lines


def test_predict_on_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", directory(tmp_path / "model", "BertModel"), "--task", "feature-extraction", "--text", *TEXTS]
    with probed(NO_GPU):
        assert printed(capsys, *arguments, "--device", "auto") == printed(capsys, *arguments)
        assert f'device "cuda": {NO_GPU.reason}' in refused(capsys, *arguments, "--device", "cuda")
        predict = mg.pipeline("feature-extraction", tmp_path / "model", device="auto", workers="auto")
        assert {p.device for p in predict.model.parameters()} == {"cpu"}


def test_questions_may_stand_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = directory(tmp_path / "model", "BertForQuestionAnswering")
    data = tmp_path / "texts.tsv"
    data.write_text(f"question\ttext\nWho?\t{TEXTS[0]}\nWhere?\t{TEXTS[4]}\n", encoding="utf-8")
    lines = [json.loads(line) for line in printed(capsys, "predict", folder, "--task", "question-answering", "--data", data).splitlines()]
    assert [line["text"] for line in lines] == [TEXTS[0], TEXTS[4]]
    assert all(line["prediction"]["answer"] in line["text"] for line in lines)


def test_similarity(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (minilm / "modules.json").exists():
        pytest.skip("this copy of MiniLM was fetched without modules.json, and no source was there to complete it")
    texts = ["A cat lies on the rug.", "Shares fell on Monday."]
    arguments = ["predict", minilm, "--task", "sentence-similarity", "--source", "The cat is on the mat.", "--text", *texts]
    near, far = (json.loads(line)["prediction"] for line in printed(capsys, *arguments).splitlines())
    assert near > 0.5 > 0.2 > far


def test_what_predict_cannot_do_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = directory(tmp_path / "model", "BertForMaskedLM")
    mask, output = ["predict", folder, "--task", "fill-mask"], tmp_path / "out.jsonl"
    for arguments, words in (
        ([*mask, "--text", "no mask", "--output", output], "predict: --text:1: the text has no [MASK]"),
        ([*mask, "--data", tmp_path / "none.tsv"], "none.tsv: the file does not exist"),
        ([*mask, "--text", "[MASK]", "--output", tmp_path / "no" / "out.jsonl"], "is no directory"),
        ([*mask, "--text", "[MASK]", "--output", tmp_path / "out.csv"], "--output must end in .jsonl, as JSON lines are what is written"),
        ([*mask, "--text", "[MASK]", "--max-length", "97"], "this model reads 96 tokens: set it to 96 or less"),
        ([*mask, "--text", "[MASK]", "--question", "Who?"], "--question belongs to --task question-answering"),
        ([*mask, "--text", "[MASK]", "--aggregation", "first"], "--aggregation belongs to"),
        (["predict", folder, "--task", "token-classification", "--text", "a"], "has no trained head for token-classification"),
        (["predict", folder, "--task", "token-classification", "--text", "a", "--top-k", "2"], "--top-k does not belong"),
        ([*mask, "--text", "[MASK]", "[MASK]\udcff"], "--text: '[MASK]\\udcff' is not UTF-8 from character 6 on"),
        (
            ["predict", folder, "--task", "question-answering", "--text", "a", "--question", "\udcff?"],
            "--question: '\\udcff?' is not UTF-8",
        ),
        (["predict", folder, "--task", "question-answering", "--text", "a"], "needs --question"),
        (["predict", folder, "--task", "sentence-similarity", "--text", "a"], "needs --source"),
        (["predict", tmp_path / "nowhere", "--task", "fill-mask", "--text", "a"], "is neither a directory"),
    ):
        assert words in refused(capsys, *arguments)
    assert not output.exists()


def test_a_missing_head_is_one_line_in_a_process_of_its_own_too(tmp_path: Path) -> None:
    """There warnings go to standard error, where pytest's handlers do not catch them."""
    folder = directory(tmp_path, "BertModel")
    command = [sys.executable, "-m", "minigrad", "predict", str(folder), "--task", "fill-mask", "--text", "[MASK]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "has no trained head" in done.stderr


def test_an_interrupt_before_the_command_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minigrad.cli.import_module", load)
    assert main(["info", os.devnull]) == 130
    assert capsys.readouterr().err == "minigrad: interrupted\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError("disk gone"), ArgumentError("two\n  lines"), KeyError("x")])
def test_no_end_is_a_traceback(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: object) -> int:
        raise error

    monkeypatch.setattr("minigrad.cli.info.run", run)
    assert main(["info", os.devnull]) == (130 if isinstance(error, KeyboardInterrupt) else 2)
    fault = "KeyError: 'x'; this is a fault of minigrad, which `minigrad --debug info` shows"
    assert capsys.readouterr().err in {
        f"minigrad info: {words}\n" for words in ("interrupted", "MemoryError", "disk gone", "two lines", fault)
    }
    if not isinstance(error, KeyboardInterrupt):
        with pytest.raises(type(error)):
            main(["--debug", "info", os.devnull])


def shell(command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`minigrad` stands for the command line."""
    line = command.replace("minigrad", f"{sys.executable} -m minigrad")
    return subprocess.run(["bash", "-c", line], capture_output=True, check=False, timeout=120, **options)


@pytest.mark.parametrize(
    ("ending", "status", "words"),
    [
        (">&-", 0, b""),
        (">&- 2>&- <&-", 0, b""),
        ("> /dev/full", 2, b"minigrad predict: [Errno 28] No space left on device\n"),
        ("| true; exit ${PIPESTATUS[0]}", 2, b""),
    ],
)
def test_output_that_nobody_takes(tmp_path: Path, ending: str, status: int, words: bytes) -> None:
    folder = directory(tmp_path, "BertForSequenceClassification")
    done = shell(f"minigrad predict {folder} --task text-classification --text a {ending}")
    assert (done.returncode, done.stderr) == (status, words)


def test_an_interrupt_is_one_line(tmp_path: Path) -> None:
    folder = directory(tmp_path, "BertForSequenceClassification")
    command = [sys.executable, "-m", "minigrad", "predict", str(folder), "--task", "text-classification", "--data", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"a text\n" * 20_000)  # more than a pipe holds: when this is through, the command reads
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"minigrad predict: interrupted\n" and process.wait(60) == 130


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "<stdin>: holds no texts"),
        (b"a\n\xff\xfe\n", "<stdin>:2: not UTF-8 (byte 0 of the line)"),
        (b"a\r\n\r\n", "<stdin>:2: the text is empty; remove the line"),
    ],
)
def test_standard_input_that_cannot_be_used(
    given: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = directory(tmp_path, "BertForSequenceClassification")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert words in refused(capsys, "predict", folder, "--task", "text-classification", "--data", "-")


def test_standard_input_gives_a_text_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = directory(tmp_path, "BertForSequenceClassification")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffeins\r\nzwei ü\ndrei\u2028vier".encode())))
    lines = printed(capsys, "predict", folder, "--task", "text-classification", "--data", "-").removesuffix("\n").split("\n")
    assert [json.loads(line)["text"] for line in lines] == ["eins", "zwei ü", "drei\u2028vier"]


def test_what_is_printed_is_json_whatever_the_terminal_knows(tmp_path: Path) -> None:
    folder = directory(tmp_path, "BertForSequenceClassification")
    done = shell(f"minigrad predict {folder} --task text-classification --text é漢", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout)["text"] == "é漢" and done.stdout.isascii()
    model = mg.models.load(folder)
    model.classifier.bias.assign(np.full(model.classifier.bias.shape, np.nan, np.float32))
    model.save_pretrained(folder)
    done = shell(f"minigrad predict {folder} --task text-classification --text a")
    assert done.returncode == 2 and b"the model's answer holds NaN or infinities" in done.stderr and done.stdout == b""


def test_names_of_files_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = directory(tmp_path, "BertModel")
    (folder / "\x1b[31m\n.bin").touch()
    assert r"'\x1b[31m\n.bin'" in printed(capsys, "info", folder)


def test_convert_mixes_no_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights of an older model are replaced, and files that the new one would be taken to have are refused."""
    first, second = directory(tmp_path / "a", "BertForMaskedLM"), directory(tmp_path / "b", "BertForSequenceClassification")
    target = tmp_path / "new"
    for source, size in ((first, "10KB"), (second, "5GB"), (first, "10KB")):
        printed(capsys, "convert", source, target, "--max-shard-size", size)
        assert type(mg.models.load(target)) is type(mg.models.load(source))
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (second / name).unlink()
    assert "DST holds tokenizer.json of another model" in refused(capsys, "convert", second, target)
    (target / "modules.json").write_text("[]", encoding="utf-8")
    assert "DST holds modules.json of another model" in refused(capsys, "convert", first, target)
    assert type(mg.models.load(target)) is type(mg.models.load(first))


def test_predict_reads_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers to the first texts are there before the last text is read, and what is read is let go."""
    folder = directory(tmp_path, "BertForSequenceClassification")
    read = 0

    class Lines(io.BytesIO):
        def __next__(self) -> bytes:
            nonlocal read
            if read == 5000:
                raise StopIteration
            read += 1
            if read == 4000:
                assert len(capsys.readouterr().out.splitlines()) >= 2048
            return b'{"text": "the pump"}\n'

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Lines()))
    assert main(["predict", str(folder), "--task", "text-classification", "--data", "-", "--format", "jsonl"]) == 0
    assert read == 5000


def test_a_text_that_cannot_be_used_is_named_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long, data = "pump " * 200, tmp_path / "texts.csv"
    monkeypatch.setattr(base, "CHUNK_TEXTS", 4)
    folder = directory(tmp_path / "classes", "BertForSequenceClassification")
    predict = ("predict", folder, "--task", "text-classification", "--output", tmp_path / "out.jsonl")
    data.write_text("label,text\n" + "A,the pump\n" * 9 + f'A,"two\nlines"\nB,{long}\n', encoding="utf-8")
    assert "texts.csv:13: the text has 202 tokens, this model reads 96: split it" in refused(capsys, *predict, "--data", data)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the pump\n" * 6 + long.encode())))
    assert "<stdin>:7: the text has 202 tokens" in refused(capsys, *predict, "--data", "-")
    assert "--text:2: the text has 202 tokens" in refused(capsys, *predict, "--text", "the pump", long)
    assert not (tmp_path / "out.jsonl").exists()
    folder = directory(tmp_path / "answers", "BertForQuestionAnswering")
    data.write_text(f"question,text\nWho?,the pump\n{long},the pump\n", encoding="utf-8")
    line = refused(capsys, "predict", folder, "--task", "question-answering", "--data", data)
    assert "texts.csv:3: the question leaves no room for text" in line


def test_without_a_terminal_lines_say_how_far_predict_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = directory(tmp_path, "BertForSequenceClassification"), tmp_path / "texts.tsv"
    predict = ("predict", folder, "--task", "text-classification", "--data")
    data.write_text("text\n" + "the pump\n" * 9, encoding="utf-8")
    assert main([*map(str, predict), str(data)]) == 0
    assert capsys.readouterr().err == "", "quick"
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(base, "CHUNK_TEXTS", 4)
    assert main([*map(str, predict), str(data)]) == 0
    out, err = capsys.readouterr()
    assert [re.sub(r", [0-9.]+ texts/s, [0-9:]+ left$", "", line) for line in err.splitlines()] == [f"{n} of 9 texts" for n in (4, 8, 9)]
    assert len(out.splitlines()) == 9
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the pump\n" * 9)))
    assert main([*map(str, predict), "-"]) == 0
    assert [re.sub(r", [0-9.]+ texts/s$", "", line) for line in capsys.readouterr().err.splitlines()] == ["4 texts", "8 texts", "9 texts"]


def test_a_broken_row_is_told_before_anything_is_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "the pump"}\n' * 2000 + "{\n", encoding="utf-8")
    arguments = ("predict", tmp_path / "no model", "--task", "text-classification", "--data", data)
    assert "texts.jsonl:2001: not valid JSON" in refused(capsys, *arguments)


def test_predict_reads_pairs_and_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = directory(tmp_path / "model", "BertForSequenceClassification")
    (tmp_path / "pairs.jsonl").write_text('{"text": "the pump", "text_b": "leaking"}\n', encoding="utf-8")
    (tmp_path / "words.conll").write_text("the O\npump O\n\nleaking O\n", encoding="utf-8")
    assert main(["predict", str(folder), "--task", "text-classification", "--data", str(tmp_path / "pairs.jsonl")]) == 0
    classify = mg.pipeline("text-classification", folder)
    assert json.loads(capsys.readouterr().out)["prediction"] == classify([{"text": "the pump", "text_pair": "leaking"}])[0]
    assert main(["predict", str(folder), "--task", "text-classification", "--data", str(tmp_path / "words.conll")]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["the pump", "leaking"]


def test_predict_reads_the_columns_that_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = directory(tmp_path / "model", "BertForSequenceClassification"), tmp_path / "mine.csv"
    predict = ("predict", folder, "--task", "text-classification")
    data.write_bytes("id,review,reply,label\n7,the café,leaking,\n".encode("latin-1"))
    columns = ("--data", data, "--text-column", "review", "--text-b-column", "reply")
    assert "of other commands --encoding latin-1" in refused(capsys, *predict, *columns)
    line = json.loads(printed(capsys, *predict, *columns, "--encoding", "latin-1"))
    expected = mg.pipeline("text-classification", folder)([{"text": "the café", "text_pair": "leaking"}])[0]
    assert line == {"text": "the café", "prediction": expected}
    assert "no column 'comment'" in refused(capsys, *predict, "--data", data, "--text-column", "comment", "--encoding", "latin-1")
    for given in (("--text", "a"), ("--data", "-")):
        for option, value in (("--text-column", "review"), ("--text-b-column", "reply"), ("--encoding", "latin-1")):
            assert f"{option} belongs to --data FILE" in refused(capsys, *predict, *given, option, value)
    assert "--format belongs to --data FILE" in refused(capsys, *predict, "--text", "a", "--format", "csv")
    line = refused(capsys, "predict", folder, "--task", "fill-mask", *columns)
    assert "--text-b-column belongs to --task text-classification" in line


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_standard_input_is_no_table(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "predict", tmp_path, "--task", "text-classification", "--data", "-", "--format", format)
    assert f"a text a line, or with --format jsonl an object a line: for {format} save it as a file" in line


def test_nothing_but_files_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = directory(tmp_path / "model", "BertForSequenceClassification")
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.jsonl")
    Path("device.jsonl").symlink_to("/dev/null")
    Path("folder.jsonl").mkdir()
    predict = ("predict", folder, "--task", "text-classification", "--text", "a", "--output")
    for target in ("pipe.jsonl", "device.jsonl", "folder.jsonl"):
        assert "exists and is not a regular file" in refused(capsys, *predict, target)
    for command in (predict, ("convert", folder)):
        assert "pass the path of a file or directory, got ''" in refused(capsys, *command, "")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "pipe.jsonl", "device.jsonl", "folder.jsonl"}


def test_predict_never_writes_over_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = directory(tmp_path / "model", "BertForSequenceClassification"), tmp_path / "texts.jsonl"
    data.write_text('{"text": "the pump"}\n', encoding="utf-8")
    (tmp_path / "link.jsonl").symlink_to(data)
    (tmp_path / "twin.jsonl").hardlink_to(data)
    for name in ("texts", "link", "twin"):
        output = tmp_path / f"{name}.jsonl"
        line = refused(capsys, "predict", folder, "--task", "text-classification", "--data", data, "--output", output)
        assert f"--output: {output} is the input: name another file" in line
    done = shell(f"minigrad predict {folder} --task text-classification --data - --output {tmp_path / 'link.jsonl'} < {data}")
    assert done.returncode == 2 and b"is the input: name another file" in done.stderr
    assert data.read_text(encoding="utf-8") == '{"text": "the pump"}\n' and (tmp_path / "link.jsonl").is_symlink()


def test_files_where_directories_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = directory(tmp_path / "model", "BertForSequenceClassification")
    weights = folder / "model.safetensors"
    for command in (["info", weights], ["convert", weights, tmp_path / "new"]):
        assert " is a file: pass the directory that holds it" in refused(capsys, *command)
    assert f"{folder}: is a directory, not a regular file" in refused(capsys, "data", "check", folder)


def test_convert_replaces_files_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, target = directory(tmp_path / "model", "BertModel"), tmp_path / "target"
    target.mkdir()
    os.mkfifo(target / "config.json")
    assert f"{target}: cannot be written: config.json exists and is not a regular file" in refused(capsys, "convert", folder, target)

"""What the fuzzing starts from: valid files of every kind, made here, and the hostile ones of the tests."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import hostile_tf
import hostile_zip
import numpy as np
import tf_writer
import tokenizer_files
import torch_writer as tw
from fuzz.mutations import MAX_BYTES, packed

import minigrad as mg
from minigrad.io import save_file
from minigrad.io.sharded_write import save_weights
from minigrad.models.config import PretrainedConfig

TESTS = Path(__file__).resolve().parents[1]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "pump", "##s", "leak", "##ing", ".", "cafe", "Pump", "é", "中"]


def _small(contents: list[bytes]) -> list[bytes]:
    return [content for content in contents if len(content) <= MAX_BYTES]


def hostile_safetensors() -> dict[str, tuple[str, bytes]]:
    """Code and content of the corpus of rows S01 to S37."""
    corpus: dict[str, tuple[str, bytes]] = _safetensors_tests().CORPUS
    return corpus


def _safetensors_tests() -> Any:
    path = TESTS / "io" / "test_safetensors.py"  # not importable by name: the standard library has an `io`
    spec = importlib.util.spec_from_file_location("hostile_safetensors", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def safetensors() -> list[bytes]:
    """Valid files of every dtype, and the hostile ones."""
    module = _safetensors_tests()
    kinds = ("?", "u1", "i2", "f2", "f4", "f8", "i8", "c8")
    arrays: dict[str, Any] = {kind: np.ones((2, 3), kind) for kind in kinds} | {"empty": np.zeros((0, 4)), "scalar": np.array(2.0)}
    with tempfile.TemporaryDirectory() as scratch:
        save_file(arrays, Path(scratch, "all"), {"format": "pt"})
        save_file({"w": np.ones(4, np.float32)}, Path(scratch, "one"))
        valid = [Path(scratch, name).read_bytes() for name in ("all", "one")]
    odd = {"b": module.tensor((2,), 0, 4, "BF16"), "e": module.tensor((0,), 4, 4), "__metadata__": {"a": "b"}}
    return _small([*valid, module.raw(odd, bytes(4)), *(content for _, content in hostile_safetensors().values())])


def torch_zip() -> list[bytes]:
    """Valid state dicts of several layouts, and the corpus of rows P01 to P37."""
    parameter = tw.name("torch._utils", "_rebuild_parameter") + tw.tuple_of(tw.tensor(), tw.TRUE, tw.ORDERED_DICT) + b"R"
    metadata = b"}" + tw.text("_metadata") + tw.ORDERED_DICT + tw.text("") + b"}" + tw.text("version") + tw.integer(1) + b"sssb"
    half = tw.storage(8, kind=tw.name("torch", "HalfStorage"), key=tw.text("1"))
    several = {
        "w": tw.tensor(),
        "t": tw.tensor((2, 2), (1, 2)),
        "p": parameter,
        "h": tw.tensor((3,), (2,), 1, of=half),
        "e": tw.tensor((0,)),
    }
    dictionary = (
        tw.PROTO + tw.ORDERED_DICT + b"(" + b"".join(tw.text(key) + value for key, value in several.items()) + b"u" + metadata + b"."
    )
    valid = [
        tw.checkpoint(),
        tw.checkpoint(dictionary, {"0": tw.DATA, "1": bytes(16)}),
        tw.checkpoint(tw.state_dict(several), {"0": tw.DATA, "1": bytes(16)}),
    ]
    canary = Path("/nonexistent/canary")
    return _small([*valid, *(row.make(canary) for row in hostile_zip.HOSTILE.values())])


def shard_index() -> list[bytes]:
    """An index with two shards, as minigrad writes it, and as others do (no digests)."""
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 3), np.float32), "c": np.array([2.5])}
    with tempfile.TemporaryDirectory() as scratch:
        save_weights(arrays, Path(scratch), max_shard_size=32, dtype=None, metadata={"format": "pt"})
        files = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    index = next(name for name in files if name.endswith(".json"))
    content = json.loads(files[index])
    content["metadata"].pop("sha256", None)
    return [packed(files), packed(files | {index: json.dumps(content).encode()})]


def tf_index() -> list[bytes]:
    """Checkpoints of one data file and of two, and the corpus of hostile ones."""
    arrays = {f"bert/layer_{i}/{kind}": np.ones((2, 3), kind) for i, kind in enumerate(("f4", "f8", "i4", "?", "f2"))}
    inputs = []
    for shards, per_block in ((1, 1000), (2, 2), (1, 1)):
        with tempfile.TemporaryDirectory() as scratch:
            tf_writer.save(Path(scratch, "model.ckpt"), arrays, shards=shards, per_block=per_block, interval=2)
            inputs.append(packed({path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}))
    for row in hostile_tf.HOSTILE.values():
        files = {"model.ckpt.index": row.index()}
        files |= {f"model.ckpt.data-{at:05d}-of-{len(row.shards):05d}": content for at, content in enumerate(row.shards)}
        inputs.append(packed(files))
    return _small(inputs)


HEAD = "ForSequenceClassification"
CONFIG = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 10,
    "id2label": {"0": "no", "1": "yes"},
    "label2id": {"no": 0, "yes": 1},
}


FAMILIES: dict[str, type[PretrainedConfig]] = {
    "bert": mg.models.BertConfig,
    "roberta": mg.models.RobertaConfig,
    "distilbert": mg.models.DistilBertConfig,
    "electra": mg.models.ElectraConfig,
}


def _keys(family: str) -> dict[str, Any]:
    """CONFIG as a family spells it."""
    spelt = FAMILIES[family].published_keys
    return {spelt.get(key, key): value for key, value in CONFIG.items()}


def write_tiny_model(directory: Path, family: str) -> None:
    mg.manual_seed(0)
    cls = FAMILIES[family]
    model = getattr(mg.models, cls.__name__.removesuffix("Config") + HEAD)
    model(cls.from_dict(_keys(family))).save_pretrained(directory)


def config(family: str) -> list[bytes]:
    """A small configuration, one with every key that minigrad reads, and ones of hub models with keys it does not."""
    cls = FAMILIES[family]
    own = _keys(family) | {"model_type": family, "architectures": [cls.__name__.removesuffix("Config") + HEAD]}
    full = json.loads(cls.from_dict(own, "config.json").to_text(own["architectures"][0]))
    foreign = own | {
        "auto_map": {"AutoModel": "evil.Model"},
        "trust_remote_code": True,
        "torch_dtype": "float16",
        "transformers_version": "4.6",
        "nested": {"a": [1, None]},
    }
    unnamed = {key: value for key, value in own.items() if key != "model_type"}
    more = [own | {"num_labels": 3}, own | {"problem_type": "regression", "id2label": {"0": "x"}, "label2id": {"x": 0}}, unnamed, {}]
    return [json.dumps(content).encode() for content in (own, full, foreign, *more)]


def sentences() -> list[bytes]:
    """How a checkpoint of sentence-transformers says what its vectors are: as since 2020, and as since 2025."""
    package = "sentence_transformers.models."
    stages = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"idx": at, "name": str(at), "path": path, "type": package + name} for at, (path, name) in enumerate(stages)]
    flags = {f"pooling_mode_{name}_token{'s' * (name != 'cls')}": name == "mean" for name in ("mean", "cls", "max")}
    inputs = []
    for count, pooling in ((3, flags | {"word_embedding_dimension": 8}), (2, {"pooling_mode": "cls", "include_prompt": True})):
        contents: list[Any] = [modules[:count], pooling, {"max_seq_length": 256, "do_lower_case": False}]
        names = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json")
        inputs.append(packed({name: json.dumps(content).encode() for name, content in zip(names, contents, strict=True)}))
    return inputs


def tokenizer() -> list[bytes]:
    """vocab.txt with its small files, and the tokenizer.json of each family."""
    vocab = "\n".join(TOKENS).encode() + b"\n"
    settings = {
        "do_lower_case": True,
        "strip_accents": None,
        "model_max_length": 512,
        "tokenizer_class": "BertTokenizer",
        "mask_token": "[MASK]",
    }
    decoder = settings | {
        "added_tokens_decoder": {
            "0": {"content": "[PAD]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        }
    }
    small = {
        "vocab.txt": vocab,
        "tokenizer_config.json": json.dumps(settings).encode(),
        "special_tokens_map.json": json.dumps({"pad_token": "[PAD]", "unk_token": {"content": "[UNK]"}}).encode(),
        "added_tokens.json": json.dumps({"[NEW]": len(TOKENS)}).encode(),
    }
    inputs = [
        packed(small),
        packed({"vocab.txt": vocab}),
        packed({"vocab.txt": vocab, "tokenizer_config.json": json.dumps(decoder).encode()}),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        source, saved = Path(scratch, "bert"), Path(scratch, "saved")
        source.mkdir()
        (source / "vocab.txt").write_bytes(vocab)
        mg.data.Tokenizer.from_pretrained(source).save_pretrained(saved)
        roberta = tokenizer_files.write_roberta(Path(scratch, "roberta"), *tokenizer_files.byte_pairs(size=270))
        mg.data.Tokenizer.from_pretrained(roberta).save_pretrained(Path(scratch, "saved_roberta"))
        charsmap = tokenizer_files.charsmap({"\u00a0": " "})
        for number, characters in enumerate((None, charsmap)):
            tokenizer_files.write_xlmr(
                Path(scratch, f"xlmr{number}"), tokenizer_files.xlmr_description(tokenizer_files.pieces(size=80), characters)
            )
        for folder in (saved, roberta, Path(scratch, "saved_roberta"), Path(scratch, "xlmr0"), Path(scratch, "xlmr1")):
            inputs.append(packed({path.name: path.read_bytes() for path in sorted(folder.iterdir())}))
    return inputs


SENTENCES = [["Maria", "works", "in", "Berlin", "."], ["The", "pump", "leaks"], ["中文", "é", "café"]]
TAGS = [["B-PER", "O", "O", "B-LOC", "O"], ["O", "B-PART", "O"], ["B-LOC", "I-LOC", "O"]]


def table(separator: str) -> list[bytes]:
    """Tables of texts, labels and second texts: with a header, without one, with line ends of both kinds."""
    rows = [["pumps leak", "yes", "a seal"], ["the nurse's café", "no", "中文"], ["", "yes", "b"], ["x", "", "y"]]
    quoted = [['"one, and ""two"""', "yes", '"first\nsecond"'], ['a "b', "no", "c"]]
    whole = [["text", "label", "text_b"], *rows]
    inputs = [whole, whole[:3], rows[:2], [["label", "text"], ["yes", "a"], ["no", "b"]], [["only a text"]], [*whole[:3], *quoted]]
    inputs.append([["text", *map(str, range(20_000))], ["a"]])  # the header's names are compared with each other
    ends = ("\n", "\r\n", "\n", "\n", "", "\n", "\n")
    return [end.join(separator.join(row) for row in given).encode() for given, end in zip(inputs, ends, strict=True)]


def conll() -> list[bytes]:
    """Sentences of two columns and of four, with tabs and with spaces, with documents and with comments."""
    inputs = []
    for separator, middle, head in ((" ", "", ""), ("\t", "", ""), (" ", " NN B-NP", "-DOCSTART- -X- -X- O\n\n"), ("\t", "", "# id = 1\n")):
        sentences = [
            "".join(f"{word}{middle}{separator}{tag}\n" for word, tag in zip(words, tags, strict=True))
            for words, tags in zip(SENTENCES, TAGS, strict=True)
        ]
        inputs.append((head + "\n".join(sentences)).encode())
    return inputs


def json_records() -> list[bytes]:
    """An object per line: texts and labels of every type, pairs, words with tags, and spans as minigrad, spaCy and doccano write them."""
    text = " ".join(SENTENCES[0])
    span = {"start": 0, "end": 5, "type": "PER"}
    files: list[list[dict[str, Any]]] = [
        [{"text": "pumps leak", "label": "yes"}, {"text": "é 👍", "label": "no"}],
        [{"text": "a", "label": 3}, {"text": "b", "label": 0}],
        [{"text": "a", "label": True, "text_b": "c", "site": [1, {"a": None}]}, {"text": "b", "label": False, "text_b": "d", "site": {}}],
        [{"tokens": words, "ner_tags": tags, "id": at} for at, (words, tags) in enumerate(zip(SENTENCES, TAGS, strict=True))],
        [{"words": words, "tags": tags} for words, tags in zip(SENTENCES, TAGS, strict=True)],
        [{"text": text, "entities": [span, span | {"start": 15, "end": 21, "text": "Berlin"}]}, {"text": "x", "entities": []}],
        [{"text": text, "label": [[0, 5, "PER"], [15, 21, "LOC"]]}, {"text": "x", "label": []}],
        [{"text": text, "entities": [{"id": 7, "start_offset": 0, "end_offset": 5, "label": "PER"}], "relations": []}],
    ]
    return ["\n".join(json.dumps(row) for row in rows).encode() for rows in files]


def label_studio() -> list[bytes]:
    """Exports, JSON and JSON-MIN, with spans and with choices."""
    text = " ".join(SENTENCES[0])
    spans = [{"type": "labels", "from_name": "ner", "value": {"start": 0, "end": 5, "text": "Maria", "labels": ["PER"]}}]
    choices = [{"type": "choices", "from_name": "kind", "value": {"choices": ["yes"]}}]
    cancelled = {"was_cancelled": True, "result": []}
    marked = {"id": 1, "data": {"text": text}, "annotations": [{"result": spans}, cancelled]}
    chosen = {"id": 1, "data": {"text": text}, "annotations": [{"result": choices, "ground_truth": True}, {"result": choices}]}
    small = {"id": 1, "text": text, "kind": "yes", "label": [{"start": 0, "end": 5, "labels": ["PER"]}]}
    inputs = [
        [marked, {"id": 2, "data": {"text": "x"}, "annotations": [{"result": []}]}],
        [chosen],
        [small, {"id": 2, "text": "x", "label": []}],
        [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}],
    ]
    return [json.dumps(tasks, indent=indent).encode() for tasks in inputs for indent in (None, 1)]

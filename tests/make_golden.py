"""Makes the files under tests/golden: what transformers computes in float64 for small random BERTs, and what its tokenizer gives.

Use: `python tests/make_golden.py` in an environment with the `oracle` extra. Attention is "eager" (the plain formula). Weights are
float16 numbers, so that they are stored exactly in little space. Nothing is pickled.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, BertModel

FOLDER = Path(__file__).resolve().parent / "golden"

SIZES = {
    "vocab_size": 24,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 10,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

RAGGED = [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0]]
HOLES = [[1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0, 0]]
MASKED_FIRST = [[0, 0, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]
"""Left padding, and rows whose first column is padding although pooled heads read it."""

CASES: dict[str, dict[str, Any]] = {
    "model_gelu": {"act": "gelu", "heads": 3, "mask": RAGGED, "head": "pooler"},
    "model_relu_no_pooler": {"act": "relu", "heads": 1, "mask": RAGGED, "head": None},
    "model_holes": {"act": "gelu_new", "heads": 4, "mask": HOLES, "head": "pooler"},
    "model_masked_first": {"act": "gelu", "heads": 2, "mask": MASKED_FIRST, "head": "pooler"},
    "classifier_gelu_new": {"act": "gelu_new", "heads": 6, "mask": RAGGED, "head": "classifier", "labels": [2, 0, -100, 1]},
    "classifier_masked_first": {"act": "relu", "heads": 2, "mask": MASKED_FIRST, "head": "classifier", "labels": [0, 2, 1, 1]},
    "regression": {"act": "gelu", "heads": 12, "mask": HOLES, "head": "classifier", "labels": [0.5, -1.25, 0.0, 2.0]},
}


def build(case: dict[str, Any], num_labels: int) -> Any:
    config = BertConfig(**SIZES, hidden_act=case["act"], num_attention_heads=case["heads"], num_labels=num_labels)
    config._attn_implementation = "eager"
    if case["head"] == "classifier":
        return BertForSequenceClassification(config)
    return BertModel(config, add_pooling_layer=case["head"] is not None)


def fill(model: Any, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Random weights, large enough that attention is far from uniform; returned as float16."""
    stored = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.1 if name.endswith("bias") else 0.25
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            stored[name] = (centre + scale * generator.standard_normal(tuple(parameter.shape))).astype(np.float16)
            parameter.copy_(torch.from_numpy(stored[name].astype(np.float64)))
    return stored


def make_case(name: str, case: dict[str, Any], seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = case.get("labels")
    num_labels = 1 if labels is not None and isinstance(labels[0], float) else 3
    model = build(case, num_labels).double().eval()
    weights = fill(model, generator)
    mask = np.array(case["mask"])
    ids = np.where(mask == 1, generator.integers(1, SIZES["vocab_size"], mask.shape), 0)  # 0 is [PAD]
    types = generator.integers(0, 2, mask.shape)
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    arrays: dict[str, np.ndarray] = dict(feed)
    inputs = {key: torch.from_numpy(value) for key, value in feed.items()}
    if labels is not None:
        arrays["labels"] = np.array(labels)
        output = model(**inputs, labels=torch.tensor(labels, dtype=torch.float64 if num_labels == 1 else torch.int64))
        arrays["logits"], loss = output.logits.detach().numpy(), output.loss
    else:
        output = model(**inputs)
        cotangent = generator.standard_normal(output.last_hidden_state.shape) * mask[:, :, None]  # nothing is asked of padding
        loss = (output.last_hidden_state * torch.from_numpy(cotangent)).sum()
        arrays["hidden_cotangent"] = cotangent
        arrays["hidden"] = output.last_hidden_state.detach().numpy() * mask[:, :, None]
        if output.pooler_output is not None:
            arrays["pooled_cotangent"] = generator.standard_normal(output.pooler_output.shape)
            loss = loss + (output.pooler_output * torch.from_numpy(arrays["pooled_cotangent"])).sum()
            arrays["pooled"] = output.pooler_output.detach().numpy()
    loss.backward()
    arrays["loss"] = loss.detach().numpy()
    for key, parameter in model.named_parameters():
        arrays[f"weight:{key}"] = weights[key]
        arrays[f"gradient:{key}"] = parameter.grad.numpy()
    arrays["config"] = np.array(json.dumps(model.config.to_dict() | {"num_labels": num_labels}))
    np.savez_compressed(FOLDER / f"bert_{name}.npz", **arrays)


HEADS: dict[str, dict[str, Any]] = {
    "masked_lm": {"kind": "BertForMaskedLM", "mask": RAGGED},
    "masked_lm_untied": {"kind": "BertForMaskedLM", "mask": HOLES, "config": {"tie_word_embeddings": False, "hidden_act": "relu"}},
    "lm": {"kind": "BertLMHeadModel", "mask": RAGGED, "config": {"is_decoder": True}},
    "pretraining": {"kind": "BertForPreTraining", "mask": RAGGED},
    "next_sentence": {"kind": "BertForNextSentencePrediction", "mask": MASKED_FIRST},
    "multi_label": {"kind": "BertForSequenceClassification", "mask": HOLES, "config": {"problem_type": "multi_label_classification"}},
    "tokens": {"kind": "BertForTokenClassification", "mask": HOLES, "config": {"hidden_act": "gelu_new"}},
    "answers": {"kind": "BertForQuestionAnswering", "mask": RAGGED},
    "choices": {"kind": "BertForMultipleChoice", "mask": RAGGED},
}
"""The heads beside the classifier, whose files hold one published model each: `kind` says which."""


def labels_of(kind: str, mask: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    n = len(mask)
    wanted = (mask == 1) & (generator.random(mask.shape) < 0.7)
    words = np.where(wanted, generator.integers(0, SIZES["vocab_size"], mask.shape), -100)
    pairs = generator.integers(0, 2, n)
    return {
        "BertForMaskedLM": {"labels": words},
        "BertLMHeadModel": {"labels": words},
        "BertForPreTraining": {"labels": words, "next_sentence_label": pairs},
        "BertForNextSentencePrediction": {"labels": pairs},
        "BertForSequenceClassification": {"labels": generator.integers(0, 2, (n, 3)).astype(np.float64)},
        "BertForTokenClassification": {"labels": np.where(wanted, words % 3, -100)},
        "BertForQuestionAnswering": {"start_positions": mask.sum(1) // 2, "end_positions": np.array([6, 2, 0, 99])},
        "BertForMultipleChoice": {"labels": pairs[::2]},
    }[kind]


def make_head(name: str, case: dict[str, Any], seed: int) -> None:
    """Logits, loss and gradients. Of answers and of a language model the loss is made here from the logits of real tokens, in float64:
    transformers' own counts scores at padding, and is computed in float32."""
    generator = np.random.default_rng(seed)
    kind, mask = case["kind"], np.array(case["mask"])
    extra = {} if kind == "BertForQuestionAnswering" else {"num_labels": 3}
    config = BertConfig(**SIZES, num_attention_heads=3, **extra, **case.get("config", {}))
    config._attn_implementation = "eager"
    model = getattr(transformers, kind)(config).double().eval()
    weights = fill(model, generator)
    unused = "cls.predictions.bias" if "cls.predictions.decoder.bias" in weights else None
    ids = np.where(mask == 1, generator.integers(1, SIZES["vocab_size"], mask.shape), 0)
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": generator.integers(0, 2, mask.shape)}
    if kind == "BertForMultipleChoice":
        feed = {key: value.reshape(2, 2, -1) for key, value in feed.items()}
    labels = labels_of(kind, mask, generator)
    output = model(**{key: torch.from_numpy(value) for key, value in (feed | labels).items()})
    loss, cross_entropy = output.loss, torch.nn.functional.cross_entropy
    if kind == "BertLMHeadModel":
        following = torch.from_numpy(np.pad(labels["labels"], ((0, 0), (0, 1)), constant_values=-100)[:, 1:])
        loss = cross_entropy(output.logits.flatten(0, 1), following.flatten())
    if kind == "BertForQuestionAnswering":
        hidden, longest = torch.from_numpy(mask == 0), mask.shape[1]
        loss = sum(
            cross_entropy(
                output[f"{end}_logits"].masked_fill(hidden, torch.finfo(torch.float64).min),
                torch.from_numpy(labels[f"{end}_positions"]).clamp(0, longest),
                ignore_index=longest,
            )
            / 2
            for end in ("start", "end")
        )
    loss.backward()
    arrays = {f"input:{key}": value for key, value in (feed | labels).items()} | {"loss": loss.detach().numpy(), "kind": np.array(kind)}
    for key, value in output.items():
        if key.endswith("logits"):
            arrays[f"output:{key}"] = value.detach().numpy()
    for key, parameter in model.named_parameters():
        if key != unused:
            arrays[f"weight:{key}"], arrays[f"gradient:{key}"] = weights[key], parameter.grad.numpy()
    arrays["config"] = np.array(json.dumps(model.config.to_dict() | extra))
    np.savez_compressed(FOLDER / f"head_{name}.npz", **arrays)


CURVE = {"steps": 20, "warmup": 5, "learning_rate": 5e-3, "weight_decay": 0.01, "max_norm": 1.0, "batch": 6, "longest": 8}


def make_curve() -> None:
    """Twenty steps of AdamW (no decay on biases and LayerNorm) with linear warm-up and decay, and clipping; no dropout."""
    generator = np.random.default_rng(100)
    model = build({"act": "gelu", "heads": 3, "head": "classifier"}, 2).double().train()
    weights = fill(model, generator)
    spared = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if not n.endswith(spared)], "weight_decay": CURVE["weight_decay"]},
        {"params": [p for n, p in model.named_parameters() if n.endswith(spared)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=CURVE["learning_rate"], betas=(0.9, 0.999), eps=1e-8)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, CURVE["warmup"], CURVE["steps"])
    shape = (CURVE["steps"], CURVE["batch"], CURVE["longest"])
    lengths = generator.integers(1, CURVE["longest"] + 1, shape[:2])
    mask = (np.arange(CURVE["longest"]) < lengths[..., None]).astype(np.int64)
    ids = generator.integers(1, SIZES["vocab_size"], shape) * mask
    labels = ids[:, :, 0] % 2  # something that can be learnt
    losses, norms = [], []
    for step in range(CURVE["steps"]):
        optimizer.zero_grad()
        batch = {"input_ids": ids[step], "attention_mask": mask[step], "labels": labels[step]}
        loss = model(**{key: torch.from_numpy(value) for key, value in batch.items()}).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CURVE["max_norm"])))
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    np.savez_compressed(
        FOLDER / "bert_curve.npz",
        config=np.array(json.dumps(model.config.to_dict())),
        settings=np.array(json.dumps(CURVE)),
        input_ids=ids,
        attention_mask=mask,
        labels=labels,
        losses=np.array(losses),
        norms=np.array(norms),
        **{f"weight:{key}": value for key, value in weights.items()},
    )


PIECES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "cats", "sat", "##s", "un", "##aff", "##able", "run", "##ning"),
    *(",", ".", "!", "?", "'", "-", "a", "b", "c", "##c", "##b", "caf", "##e", "naive", "中", "文", "2", "##0", "##24"),
]
TEXTS = [
    "The cat sat.",
    "cats running, unaffable!",
    "naïve café",
    "",
    "   \t\n ",
    "2024 - the cat's",
    "中文 the",
    "abc bca xyz",
    "[MASK] the [SEP] cat",
    "UNAFFABLE\u00a0run\u200bning",
]


def make_tokenization() -> None:
    """Token ids of some texts, alone and as pairs with the next text, whole and truncated."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
        tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    pairs = TEXTS[1:] + TEXTS[:1]
    found = {
        "vocab": PIECES,
        "texts": TEXTS,
        "pairs": pairs,
        "single": [tokenizer(text)["input_ids"] for text in TEXTS],
        "single_max_5": [tokenizer(text, truncation=True, max_length=5)["input_ids"] for text in TEXTS],
        # One batch: called with a single pair, transformers takes an empty second text for none.
        "pair": {key: tokenizer(TEXTS, pairs)[key] for key in ("input_ids", "token_type_ids")},
    }
    (FOLDER / "tokenization.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    for i, (name, case) in enumerate(CASES.items()):
        make_case(name, case, seed=i)
    for i, (name, case) in enumerate(HEADS.items()):
        make_head(name, case, seed=200 + i)
    make_curve()
    make_tokenization()
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.stat().st_size:8d}  {path.name}")

"""Fine-tune a small BERT on pairs: does an item suit what a person says about themselves? A recommender with an honest evaluation.

    python examples/finetune_pairs.py

Both texts go into the model at once, [CLS] profile [SEP] item [SEP], so that it can compare them word by word. Two things keep the figures
honest. No user of the test pairs occurs in training, so nothing is known about them but their profile. And there are two baselines, one
that always gives the more common answer and one that sees the item alone: a model that is no better than the second has learned which
items are popular, not who likes what. The default settings reach an accuracy of 0.94 for new users (0.92 with the `fast` extra: the last
digits of its sums differ), and 0.50 from the item alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad.data import LabelMap, Record, Tokenizer, records_from, split_records
from minigrad.errors import MinigradError
from minigrad.train import Progress, SequenceClassification, Trainer, TrainingSettings
from minigrad.train.metrics import accuracy, roc_auc

LIKED, NOT_LIKED = "interested", "not interested"

# Topics, and things that belong to each.
TOPICS: Mapping[str, tuple[str, ...]] = {
    "cooking": ("a cast-iron frying pan", "a set of spice jars", "a bread oven for the kitchen", "a collection of pasta recipes"),
    "gardening": ("a pair of pruning shears", "a packet of tomato seeds", "a raised bed for vegetables", "a watering can"),
    "cycling": ("a helmet with a rear light", "a bike repair stand", "a saddle for long rides", "a set of pedals"),
    "astronomy": ("a small telescope", "a rotating map of the stars", "a guide to the planets", "a red lamp for looking at the night sky"),
    "music": ("a pair of guitar strings", "a folding piano stool", "a book of songs for the violin", "a tuner that clips on"),
    "painting": ("a box of watercolours", "an easel of beech wood", "six brushes of different widths", "a roll of primed canvas"),
    "fishing": ("a carbon rod with a reel", "a tin of hooks and lines", "a landing net", "a float for trout in rivers"),
    "photography": ("a tripod of aluminium", "a wide-angle lens", "a camera bag", "an album for printed pictures"),
}
QUALITIES = ("sturdy", "light", "second-hand", "handmade", "cheap", "well-kept")
OPENINGS = ("{name} is {age}.", "My name is {name} and I am {age}.", "{name}, {age} years old.")
LIKES = ("Loves {0} and {1}.", "Spends every weekend on {0} or {1}.", "Great fan of {0}, and of {1} too.")
TIRED = ("Has had enough of {0}.", "Used to be into {0}, but gave it up.", "Cannot stand {0} any more.")
NAMES = ("Ines", "Tomas", "Ruth", "Kofi", "Lena", "Marek", "Aisha", "Jonas", "Priya", "Owen", "Yuki", "Clara")


@dataclass(frozen=True)
class User:
    """Two topics that a user likes, one that the profile names as disliked, and the profile text."""

    likes: tuple[str, str]
    tired_of: str
    profile: str


def catalogue() -> list[tuple[str, str]]:
    """(topic, thing) of all items."""
    return [(topic, thing) for topic, things in TOPICS.items() for thing in things]


def describe(topic: str, thing: str, quality: str) -> str:
    """The text of an item."""
    return f"{topic}: {thing}, {quality}"


# 1. Data. The rule: a user is interested in the items of the two liked topics and in no others. One answer in twenty is noise, so no model
# can be right more than 95% of the time. Half of the items shown to a user are of liked topics, a quarter of the topic that the user is
# tired of, a quarter of others; so over all users each item is liked and not liked about equally often. A bag of words therefore cannot
# tell the answer, neither from the item nor from both texts: it depends on whether the profile names the item's topic, and in which sense.
# An item's text names its topic too; with only the thing ("a pair of pruning shears") a small BERT would need more than a thousand pairs.
def make_pairs(users: int, seed: int, noise: float = 0.05) -> tuple[list[User], list[Record]]:
    generator = np.random.default_rng(seed)

    def one_of(options: Sequence[str]) -> str:
        return options[generator.integers(len(options))]

    # Each combination of topics belongs to one user; else a test user's profile could be in training under another name.
    tastes = [(pair, tired) for pair in combinations(TOPICS, 2) for tired in TOPICS if tired not in pair]
    people, rows = [], []
    for number, taste in enumerate(generator.permutation(len(tastes))[:users]):
        (first, second), tired = tastes[taste]
        opening = one_of(OPENINGS).format(name=one_of(NAMES), age=generator.integers(18, 80))
        sentences = [one_of(LIKES).format(first, second), one_of(TIRED).format(tired)]
        generator.shuffle(sentences)
        user = User((first, second), tired, " ".join([opening, *sentences]))
        people.append(user)
        others = [topic for topic in TOPICS if topic not in (first, second, tired)]
        for topic in [first, second] * 4 + [tired] * 4 + [one_of(others) for _ in range(4)]:
            liked = (topic in user.likes) != (generator.random() < noise)
            item = describe(topic, one_of(TOPICS[topic]), one_of(QUALITIES))
            rows.append({"text": user.profile, "text_b": item, "label": LIKED if liked else NOT_LIKED, "user": f"user {number}"})
    return people, records_from(rows, name="made pairs")


# 2. The baseline to beat: a logistic regression on the words of the item alone.
def item_only_accuracy(train: Sequence[Record], test: Sequence[Record], labels: LabelMap) -> float:
    words = sorted({word for record in train for word in str(record.text_b).split()})

    def counts(records: Sequence[Record]) -> mg.Tensor:
        return mg.Tensor([[str(record.text_b).split().count(word) for word in words] for record in records], dtype="float32")

    model = mg.nn.Linear(len(words), len(labels))
    optimizer = mg.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.01)
    bags, ids = counts(train), labels.ids(train)
    for _ in range(100):
        mg.functional.cross_entropy(model(bags), ids).backward()
        optimizer.step()
        optimizer.zero_grad()
    return accuracy(labels.ids(test), model(counts(test)).numpy().argmax(axis=1))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="minilm-l6", metavar="DIR|ID|minilm-l6", help="a model directory, a Hugging Face id, or the named checkpoint")
    add("--layers", type=int, default=4, metavar="N", help="keep the first N encoder layers (default 4)")
    add("--users", type=int, default=100, help="users to generate, 10 to 168, with 16 pairs each")
    add("--epochs", type=int, default=6)
    add("--batch-size", type=int, default=16)
    add("--lr", type=float, default=2e-4, help="peak learning rate (default 2e-4)")
    add("--seed", type=int, default=0)
    add("--output", type=Path, default=Path("runs/pairs"), metavar="DIR", help="log.jsonl, checkpoints/ and best/ go here")
    add("--resume", action="store_true", help="go on with the run in --output")
    options = parser.parse_args(arguments)
    if not 10 <= options.users <= 168:
        parser.error(f"--users lies between 10 and 168, got {options.users}")
    return options


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    options = parse_arguments(arguments)
    settings = TrainingSettings(epochs=options.epochs, lr=options.lr, metric="roc_auc", seed=options.seed)
    mg.manual_seed(options.seed)
    people, pairs = make_pairs(options.users, options.seed)

    # 3. The split is by user. near_duplicates is off: the same items may be on both sides, only the people are new.
    shares = {"train": 0.7, "dev": 0.15, "test": 0.15}
    records = split_records(pairs, shares, seed=options.seed, group_column="user", near_duplicates=None)
    users = {split: {str(record.fields["user"]) for record in rows} for split, rows in records.items()}
    print(", ".join(f"{len(rows)} {split} pairs of {len(users[split])} users" for split, rows in records.items()))

    # 4. Pairs to numbers: text and text_b of a record are encoded together, with token types that distinguish them.
    labels = LabelMap((NOT_LIKED, LIKED))
    task = SequenceClassification(labels)
    directory = mg.io.find_checkpoint(options.model)
    tokenizer = Tokenizer.from_pretrained(directory)
    model = mg.models.load(directory, task.head, num_hidden_layers=options.layers, **task.options())
    dealing = {"train": {"batch_size": options.batch_size, "shuffle": True, "seed": options.seed}}
    longest = min(128, mg.models.auto.max_tokens(model.config))
    examples = {split: task.examples(tokenizer, rows, longest, **dealing.get(split, {})) for split, rows in records.items()}

    def save_model(place: Path) -> None:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)

    # 5. Training. The best model is the one that ranks the pairs of the dev users best.
    options.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        model,
        task.objective,
        examples["train"].loader,
        settings,
        evaluate=lambda: task.evaluate(model, examples["dev"]).metrics,
        output=options.output,
        save_model=save_model,
        callbacks=[Progress()],
    )
    result = trainer.fit(resume=options.resume)
    if result.reason == "interrupted":
        print(f"stopped after step {result.step}; --resume goes on from there", file=sys.stderr)
        sys.exit(result.exit_code)

    # 6. The figures, for users that were not in training.
    best = mg.models.load(options.output / "best")
    rows = task.evaluate(best, examples["test"]).predictions
    true = labels.ids(records["test"])
    common = int(np.bincount(labels.ids(records["train"])).argmax())
    figures = {
        "accuracy": float(np.mean([row["label"] == row["prediction"] for row in rows])),
        "auc": roc_auc(true, [row["probabilities"][LIKED] for row in rows]),
        "item_only_accuracy": item_only_accuracy(records["train"], records["test"], labels),
        "majority_accuracy": float(np.mean(true == common)),
    }
    print(f"\n{len(users['test'])} new users: accuracy {figures['accuracy']:.3f}, AUC {figures['auc']:.3f}")
    print(f"  the item alone {figures['item_only_accuracy']:.3f}, always {labels.names[common]!r} {figures['majority_accuracy']:.3f}")
    print("  no model can have an accuracy above 0.95: the rest is noise\n")

    # 7. Use: all items, ranked for one of the new users.
    user = people[int(min(users["test"]).removeprefix("user "))]
    items = catalogue()
    classify = mg.pipeline("text-classification", options.output / "best", max_length=longest, top_k=None)
    found = classify([{"text": user.profile, "text_pair": describe(topic, thing, "sturdy")} for topic, thing in items])
    scores = [next(entry["score"] for entry in entries if entry["label"] == LIKED) for entries in found]
    order = np.argsort(scores)[::-1]
    print(user.profile)
    for place in [*order[:5], *order[-3:]]:
        topic, thing = items[place]
        print(f"  {scores[place]:.2f} {thing} ({topic}{', liked' if topic in user.likes else ''})")
    return figures


if __name__ == "__main__":
    try:
        main()
    except (MinigradError, OSError) as error:
        sys.exit(f"error: {error}")

"""What RoBERTa has and BERT has not equals transformers: positions that pass over padding.

`python -m pytest tests/oracle/test_siblings_oracle.py -s` prints the largest errors and the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from oracle.agreement import agree, summary
from oracle.twins import HIDDEN, SMALL, build, keys_of, ragged, torched, transformers

from minigrad.data import PackedTokens

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nthe positions of RoBERTa against transformers {transformers.__version__}:\n{summary()}")


def test_masks_that_hide_real_tokens_do_not_move_the_positions_of_roberta() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = build("RobertaModel", keys_of("Roberta", SMALL), 1)
    feed = ragged(generator, ours.config, 6, 12, holes=True)
    feed["input_ids"][feed["input_ids"] == 1] = 7
    feed["input_ids"][:, 4] = 1  # padding amid the text, hidden or not
    wanted = theirs(**torched(feed)).last_hidden_state.detach().numpy() * feed["attention_mask"][:, :, None]
    agree("RobertaModel last_hidden_state", ours(**feed).last_hidden_state.numpy(), wanted, HIDDEN)


def test_padding_on_the_left_of_roberta() -> None:
    """Positions begin at the first token that is no padding, padded and packed."""
    generator = np.random.default_rng(0)
    ours, theirs = build("RobertaModel", keys_of("Roberta", SMALL), 1)
    mask = (np.arange(9)[::-1] < np.array([9, 4, 1])[:, None]).astype(np.int64)
    ids = np.where(mask == 1, generator.integers(2, 50, mask.shape), 1)
    wanted = theirs(**torched({"input_ids": ids, "attention_mask": mask})).last_hidden_state.detach().numpy()
    agree("RobertaModel last_hidden_state", ours(ids, mask).last_hidden_state.numpy()[mask == 1], wanted[mask == 1], HIDDEN)
    rows = ours(PackedTokens.of([row[own == 1] for row, own in zip(ids, mask, strict=True)])).last_hidden_state
    agree("RobertaModel last_hidden_state", rows.numpy(), wanted[mask == 1], HIDDEN)

"""The spans behind tags, against seqeval, whose rule for broken sequences is conlleval's too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.tagging import spans_of

pytestmark = pytest.mark.oracle
sequence_labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")

SEQUENCES = st.lists(st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("X", "Y", "a-b"))]))


@given(SEQUENCES)
def test_spans_are_those_of_seqeval(tags: list[str]) -> None:
    assert spans_of(tags) == [(first, last + 1, kind) for kind, first, last in sequence_labeling.get_entities(tags)]


@given(SEQUENCES)
def test_bilou_is_bioes_in_other_letters(tags: list[str]) -> None:
    spelled = [tag[0].translate(str.maketrans("ES", "LU")) + tag[1:] for tag in tags]
    assert spans_of(spelled) == [(first, last + 1, kind) for kind, first, last in sequence_labeling.get_entities(tags)]

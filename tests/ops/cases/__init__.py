"""One Hypothesis strategy ("row") per operation and composite, which draws its arrays and constants, all numbers away from kinks.

`test_contract.py`, `test_planted.py` and the edge cases run over these rows, whose modules are named after those of `minigrad/ops`. An
operation without a row fails the suite.
"""

from ops.cases import blocks, conv, elementwise, index, linalg, losses, normalisation, recurrent, reduce, segments, shape, sorting  # noqa: F401 - each fills the table
from ops.cases.base import CASES as CASES
from ops.cases.base import PUBLIC as PUBLIC
from ops.cases.base import Sample as Sample

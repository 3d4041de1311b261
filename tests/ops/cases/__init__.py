"""One row per operation and composite: how to draw arrays and constants for it, with every number away from kinks.

`test_gradients.py` and `test_contract.py` run over these rows, which stand in modules named after those of `minigrad/ops`. An operation
without a row fails the suite.
"""

from ops.cases import blocks, conv, elementwise, index, linalg, losses, normalisation, recurrent, reduce, segments, shape, sorting  # noqa: F401 - each fills the table
from ops.cases.base import CASES as CASES
from ops.cases.base import PUBLIC as PUBLIC
from ops.cases.base import Sample as Sample

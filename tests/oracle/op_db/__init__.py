"""minigrad held against PyTorch's own list of operations (`op_db`): its sample inputs, its error inputs, its float32 tolerances.

`vocabulary.py` says what an adapter is, the `entries_*.py` files hold one adapter for each of PyTorch's entries that minigrad has a
function for, `driver.py` runs them. From the root of the repository,

    PYTHONPATH=.:tests python -m oracle.op_db [ENTRY ...]

prints the table: per entry the samples compared, the largest errors, and every sample left out with its reason.
"""

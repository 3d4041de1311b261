"""A contender in its own process, because two BLAS thread pools in one process slow each other down.

`processes.Contender` starts it. The first line of its input describes it; each further line, "train" or "infer", makes it do one pass over
the batches ("copy", for a large product, makes it copy memory). It answers each with one line of JSON: seconds per batch, or an error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from harness.work import Size, Work


def contender(description: dict[str, Any]) -> Any:
    """An object with `train`, `infer` and `close`, built from the description: its kind, its work, and options of the kind. Only the
    library that it needs is imported."""
    given = dict(description)
    kind, work = given.pop("kind"), Work(Size(**given.pop("size")), given.pop("head"), given.pop("batches"))
    if kind == "minigrad":
        from harness.ours import Minigrad

        return Minigrad(work, **given)
    if kind == "torch":
        from harness.theirs import Torch

        return Torch(work, **given)
    if kind == "sgemm":
        from harness.floor import Products

        return Products(work)
    if kind == "minigrad on device":
        from harness.ours_gpu import MinigradOnDevice

        return MinigradOnDevice(work, **given)
    from harness import theirs_gpu

    return theirs_gpu.LargeProduct(**given) if kind == "large product" else theirs_gpu.TorchOnDevice(work, **given)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps the output of libraries out of the answers

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        one = contender(json.loads(sys.stdin.readline()))
        answer(seconds=0.0)
        for line in sys.stdin:
            answer(seconds=getattr(one, line.strip())())
        one.close()
    except Exception as error:  # any error is reported in the table
        answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

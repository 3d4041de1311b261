"""A contender as a process of its own, because two BLAS thread pools in one process ruin each other.

Not for hands: `processes.Contender` starts it. The first line it reads says what it is; each further one, "train" or "infer", lets it
do one pass over the batches. It answers each with one line of JSON: seconds per batch, or what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from harness.work import Size, Work


def contender(description: dict[str, Any]) -> Any:
    """What can `train`, `infer` and `close`, of the description's kind and work; the rest of it says how. Only the library that it needs
    is imported."""
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
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        one = contender(json.loads(sys.stdin.readline()))
        answer(seconds=0.0)
        for line in sys.stdin:
            answer(seconds=getattr(one, line.strip())())
        one.close()
    except Exception as error:  # whatever it is, the table says it
        answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

"""Inference by CUDA graphs: the kernel launches of a function of tokens are captured once per batch size, and replayed by one call.

Batches are padded to one of a few sizes with sequences whose results are dropped. A size is captured the second time it occurs: a capture
costs as much as several batches, and many sizes occur only once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import ref

import numpy as np

from minigrad.anomaly import detecting
from minigrad.backend import random, to_numpy, transfers
from minigrad.backend.graphs import MAX_GRAPHS, Feed, Recorder
from minigrad.backend.precision import product_precision
from minigrad.errors import ArgumentError
from minigrad.packing import IntArray, PackedTokens
from minigrad.parameter import Parameter
from minigrad.workers.graphs.buckets import bucket_for, padded_tokens, size_above, write_padded, write_padded_array
from minigrad.workers.graphs.ids import all_below, are_below, rows_by_name
from minigrad.workers.snapshot import ModelSnapshot

logger = logging.getLogger("minigrad")

Function: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class _Graph:
    feed: Feed
    replay: Callable[[], None]
    output: Any
    rows: dict[str, int]
    """The number of rows that each kind of id may index."""


class CapturedFunction:
    """Computes function(tokens), or function(tokens, rows), by CUDA graphs.

    function: returns a tensor on the GPU with a row for each sequence, or for each token, or for each of the rows.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._seen: set[Hashable] = set()
        self._snapshot: ModelSnapshot | None = None
        self._arrays: list[tuple[ref[Parameter], ref[Any]]] = []
        self._recorder: Recorder | None = None
        self._disabled = False

    def __call__(self, tokens: PackedTokens, rows: IntArray | None = None) -> np.ndarray[Any, Any] | None:
        """The function's result, on the host. None if it must run eagerly: the size is new or cannot be captured, a module has hooks, or an
        id is out of range, which the eager run reports.

        rows: the tokens that are asked for, if the function takes them; padded with token 0, whose results are dropped.
        Must be called without gradient recording.
        """
        bucket = None if self._disabled or detecting.get() else bucket_for(tokens.packing.lengths)
        if bucket is None or tokens.packing.masked_first is not None:
            return None
        if self._snapshot is None or self._snapshot.changed() or self._moved():
            self.forget()
            self._snapshot = ModelSnapshot(values=False)
            self._arrays = [(ref(p), ref(p.array)) for p in self._snapshot.parameters() if p.device != "cpu"]
        if self._snapshot.hooked:
            return None
        size = None if rows is None else size_above(max(len(rows), 1))
        key = bucket, size, product_precision.get()
        if key not in self._seen:
            self._seen.add(key)
            return None
        if self._recorder is None:
            self._recorder = Recorder()
        with self._recorder.entered():
            graph = self._graphs.get(key) or self._capture(self._recorder, self._snapshot, padded_tokens(tokens, bucket), size)
            if graph is None:
                return None
            self._store(key, graph)
            if not _write_inputs(graph, tokens, rows):
                return None
            graph.feed.send()
            graph.replay()
            if rows is not None:
                return to_numpy(graph.output[: len(rows)])
            count = len(tokens.packing) if len(graph.output) == bucket.sequences else tokens.packing.rows
            return to_numpy(graph.output[:count])

    def forget(self) -> None:
        """Drop all graphs and free their memory."""
        self._graphs.clear()
        self._seen.clear()

    def _moved(self) -> bool:
        """Whether a parameter is gone or has another array than at the capture, whose memory address the graphs read."""
        return any((p := known()) is None or p.array is not array() for known, array in self._arrays)

    def _store(self, key: Hashable, graph: _Graph) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        while len(self._graphs) > MAX_GRAPHS:
            self._seen.discard(self._graphs.popitem(last=False)[0])

    def _capture(self, recorder: Recorder, snapshot: ModelSnapshot, whole: PackedTokens, size: int | None) -> _Graph | None:
        """Capture a graph. None if that fails, which is logged. size: how many rows are asked for, with padding."""
        from minigrad.kernels.cuda.graph_inputs import placed_tokens, tokens_layout

        layout = tokens_layout(whole) if size is None else {**tokens_layout(whole), "rows": ((size,), np.int64)}
        lengths = (len(whole.packing), whole.packing.rows) if size is None else (size,)
        try:
            feed = Feed(layout)
            write_padded(whole, feed.buffer())
            feed.send()
            part = placed_tokens(whole, feed.arrays)
            given = (part,) if size is None else (part, feed.arrays["rows"])
            with random.at(0, 0):
                (output, (rows, others)), replay = recorder.capture(lambda: self._compute(given, feed.arrays))
                if random.current().ordinals:
                    raise ArgumentError("the function draws random numbers, which would be the same in every replay")
            if snapshot.changed():
                raise ArgumentError("the function changes a buffer or an attribute of a module, which a replay would not do again")
            if others:
                raise ArgumentError("the function reads rows by ids that it computes, which nobody would check in a replay")
            if len(output) not in lengths:
                raise ArgumentError(f"the function gives {len(output)} rows, and not {' or '.join(map(str, lengths))}")
        except Exception as error:  # whatever it is: an eager run raises it too, or works without graphs
            self.forget()
            self._disabled = True
            logger.info("inference without CUDA graphs: %s: %s", type(error).__name__, str(error))  # as text: a record would keep it alive
            return None
        finally:
            snapshot.restore_buffers()
        return _Graph(feed, replay, output, rows)

    def _compute(self, given: tuple[Any, ...], arrays: dict[str, Any]) -> tuple[Any, tuple[dict[str, int], bool]]:
        """The computation that is captured: its output; the number of rows that ids may index; whether rows are read by other ids."""
        with transfers.collecting_ids() as noted:
            output = self.function(*given).array.copy()  # a copy, which keeps neither a base array nor a cached short copy alive
        return output, rows_by_name(arrays, noted)


def _write_inputs(graph: _Graph, tokens: PackedTokens, rows: IntArray | None) -> bool:
    """Write the replay's inputs into the feed's buffer. False if an id is out of range, or a row is none of the tokens."""
    buffer = graph.feed.buffer()
    write_padded(tokens, buffer)
    if rows is not None:
        write_padded_array(rows, 0, buffer["rows"])
        if not are_below(buffer["rows"], tokens.packing.rows):
            return False
    return all_below(buffer, graph.rows)

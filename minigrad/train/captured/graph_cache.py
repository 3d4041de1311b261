"""The cache of captured training steps: a CUDA graph for each bucket of batches or parts, with what its replay needs.

Graphs are dropped when the model or the objective has changed since the capture. If a step cannot be captured, a log line says why, once,
and no step is captured any more; if only memory runs out, other steps still are.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from minigrad.anomaly import detecting
from minigrad.backend import device_of, random
from minigrad.backend.graphs import MAX_GRAPHS, Feed, Recorder
from minigrad.backend.precision import product_precision
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError
from minigrad.nn.module import Module
from minigrad.optim import Optimizer
from minigrad.optim.updates import Update
from minigrad.parameter import Parameter
from minigrad.train.average import Average
from minigrad.train.captured.host_state import HostState
from minigrad.train.captured.inputs import kind_of, layout_of, padded, placed, write
from minigrad.train.captured.step_graph import CHANGING, Control, Extent, GraphKey, StepComputation, StepGraph, fixed_part
from minigrad.train.objectives import LossOf, has_own_loss, padding_label
from minigrad.workers.graphs.buckets import Bucket, bucket_for
from minigrad.workers.replicas import forget_graphs
from minigrad.workers.snapshot import PLAIN, ModelSnapshot

logger = logging.getLogger("minigrad")

Pieces: TypeAlias = Sequence[tuple[Batch | None, GraphKey]]
"""The graphs to replay for a step, in order: one for the batch, or one for each part and one for the end (None). Empty if none can be."""

DIFFERENT = "the parts of a step do not all give gradients to the same parameters"


class GraphCache:
    """The captured steps of one team. loss_of: a `LossOf` whose objective can ignore items; for others nothing is captured."""

    def __init__(self, loss_of: Any, optimizer: Optimizer, average: Average | None) -> None:
        self.loss_of, self.optimizer, self.recorder = loss_of, optimizer, Recorder()
        self._graphs: OrderedDict[GraphKey, StepGraph] = OrderedDict()
        self._too_large: set[GraphKey] = set()
        """Keys of steps whose graph did not fit in memory even with no other graph kept."""
        self._snapshot: ModelSnapshot | None = None
        self._attributes: list[dict[str, Any]] = []
        self._computation = StepComputation(loss_of, optimizer, average, Control(optimizer))
        self._disabled = self._warned = False
        if type(loss_of) is not LossOf:  # a subclass may compute another loss
            self._disable("the loss is not an objective's (mg.train.LossOf)")
            return
        objective, terms = loss_of.objective, loss_of.objective.terms()
        self._ignored, kind = padding_label(terms), type(objective).__name__
        if any(map(has_own_loss, [objective, *(term for _, term in terms)])):
            self._disable(f"{kind} has a `loss` of its own, and only `share` can be captured", logging.INFO)
        elif self._ignored is None:
            self._disable(f"{kind} cannot ignore an item, so batches cannot be padded to one size", logging.INFO)

    def plan(self, batch: Batch, parts: int, updates: bool, max_norm: float | None, scaled: bool) -> tuple[list[float], Pieces]:
        """The divisors of the objective's terms, and the graphs to replay for a step. parts: as in `Team.backward`."""
        if self._disabled or detecting.get() or batch.tokens.packing.masked_first is not None:
            return [], []
        if any(p.leaf.hooks is not None and any(True for _ in p.leaf.hooks) for p in self.optimizer.steps):  # a replay would not call them
            return [], []
        counts = [objective.count(batch) for _, objective in self.loss_of.objective.terms()]
        counted = tuple([count > 0 for count in counts])
        if not any(counted):
            return counts, []
        end = GraphKey(Extent.END, None, None, updates, max_norm, scaled, counted, product_precision.get(), random.current().seed)
        divided = batch.split(parts)
        if len(divided) == 1:
            return counts, [(batch, end._replace(extent=Extent.WHOLE, bucket=_bucket(batch), kind=kind_of(batch)))]
        passes, pieces = end._replace(updates=False, max_norm=None, scaled=False), list[tuple[Batch | None, GraphKey]]()
        for part in divided:
            extent = Extent.FURTHER if pieces else Extent.FIRST
            pieces.append((part, passes._replace(extent=extent, bucket=_bucket(part), kind=kind_of(part))))
        pieces.append((None, end))
        if len({key for _, key in pieces}) <= MAX_GRAPHS:
            return counts, pieces
        if not self._warned:
            logger.warning("steps whose parts have more than %d sizes are not captured", MAX_GRAPHS - 1)
            self._warned = True
        return counts, []

    def find(self, pieces: Pieces) -> list[StepGraph]:
        """The graphs of these pieces; empty if one is missing or the graphs are out of date."""
        if self._is_stale() or not self._mark_used([key for _, key in pieces]):
            return []
        graphs = [self._graphs[key] for _, key in pieces]
        if any(graph.touched != graphs[0].touched for graph in graphs):
            self._disable(DIFFERENT)
            return []
        return graphs

    def drop(self, key: GraphKey) -> None:
        """Drop a graph, so that it is captured again."""
        del self._graphs[key]

    def clear_stop(self) -> None:
        """Let replays update again, after one whose loss or gradient was not finite."""
        with self.recorder.entered():
            self._computation.control.stopped.fill(0)

    # ---------------------------------------------------------------- staleness
    def _is_stale(self) -> bool:
        """Whether the model or the objective has changed since the capture."""
        return self._snapshot is None or self._snapshot.changed() or not all(map(_are_same, self._attributes_now(), self._attributes))

    def _attributes_now(self) -> list[dict[str, Any]]:
        return [vars(objective) for objective in self.loss_of.objective.made_of()]

    def _reset(self) -> ModelSnapshot:
        """Drop all graphs, and take a snapshot of the model and the objective for those to come."""
        self._graphs.clear()
        self._too_large.clear()
        model = self.loss_of.model
        modules = [module for _, module in model.named_modules()] if isinstance(model, Module) else []
        for objective in self.loss_of.objective.made_of():
            objective.place(device_of(self.optimizer.arena.data))
        self._snapshot, self._attributes = ModelSnapshot(self.optimizer.steps, modules), list(map(dict, self._attributes_now()))
        return self._snapshot

    # ---------------------------------------------------------------- capture
    def capture(self, pieces: Pieces) -> bool:
        """Capture the missing graphs, while no step is in flight.

        Returns False if that fails, which is logged, if modules have hooks, and if no graph is missing.
        """
        snapshot = self._reset() if self._snapshot is None or self._is_stale() else self._snapshot
        keys = [key for _, key in pieces]
        missing = not self._mark_used(keys)
        if self._disabled or snapshot.hooked or not self._too_large.isdisjoint(keys):  # a replay would not call hooks
            return False
        for _ in range(2 * missing):  # if memory is short, the last captures may have evicted the first
            touched: list[Parameter] | None = None
            for part, key in pieces:
                graph = self._graphs.get(key) or self._capture(snapshot, part, key, touched or [])
                if graph is None:
                    return False
                if touched is not None and graph.touched != touched:  # a replay would overwrite a gradient where it should add to it
                    self._disable(DIFFERENT)
                    return False
                touched = graph.touched
            if self._mark_used(keys):
                return True
        if missing:
            self._too_large.update(keys)
            logger.warning("a step in %d parts is not captured: its graphs do not fit in memory", len(pieces) - 1)
        return False

    def _mark_used(self, keys: Sequence[GraphKey]) -> bool:
        """Mark these graphs as the most recently used. Returns whether all are there."""
        known = [key for key in keys if key in self._graphs]
        for key in known:
            self._graphs.move_to_end(key)
        return len(known) == len(keys)

    def _capture(self, snapshot: ModelSnapshot, part: Batch | None, key: GraphKey, touched: list[Parameter]) -> StepGraph | None:
        """Capture a graph, and if memory runs out, once more with all other graphs dropped. None if that fails, too.

        touched: the parameters that have a gradient from earlier parts of the step.
        """
        assert self._ignored is not None
        whole = None if part is None else padded(part, _bucket(part), self._ignored)
        with self.recorder.entered():
            graph = self._try_capture(snapshot, whole, key, touched, self._ignored)
            if graph is None and not self._disabled:
                self._graphs.clear()
                forget_graphs()
                self.recorder.free_unused()
                graph = self._try_capture(snapshot, whole, key, touched, self._ignored)
        if graph is not None:
            self._graphs[key] = graph
            while len(self._graphs) > MAX_GRAPHS:
                self._graphs.popitem(last=False)
        elif not self._disabled:
            self._too_large.add(key)
            what = "a step" if key.extent is Extent.WHOLE else "a part of a step"
            what = "the end of a step" if whole is None else f"{what} of {whole.tokens.packing.rows} tokens"
            logger.warning("%s is not captured: its graph does not fit in memory", what)
        return graph

    def _try_capture(
        self, snapshot: ModelSnapshot, whole: Batch | None, key: GraphKey, touched: list[Parameter], ignored: float
    ) -> StepGraph | None:
        """Capture a graph. None if memory runs out, or if steps cannot be captured at all, which is given up then."""
        foreign, before, stopped = snapshot.cleared_parameters(), HostState.of(self.optimizer), self._computation.control.stopped
        try:
            if key.updates:
                self.optimizer.arrays()  # creates missing moments, outside of the graph's memory
            layout = layout_of(whole, len(key.counted))
            if key.extent in (Extent.WHOLE, Extent.END):
                layout = {**layout, "changing": ((len(self.optimizer.arena.places), len(CHANGING)), np.float32)}
            feed = Feed(layout)
            write(whole, [1.0] * len(key.counted), 0, 1.0, feed.buffer(), ignored)
            feed.send()
            stopped.fill(1)  # so that the warm-up runs before the capture update nothing
            part = None if whole is None else placed(whole, feed.arrays)

            def computation() -> tuple[Any, dict[str, int], list[Update]]:
                self.optimizer.zero_grad()
                for p in touched:
                    p.leaf.grad = p.leaf.view
                found = self._computation.run(part, feed.arrays, key, self.recorder.side_stream)
                for p in foreign:
                    if p.leaf.grad is not None:
                        raise ArgumentError(f"{p.name or 'a parameter'} gets a gradient but is none of the optimizer's")
                return found

            (numbers, rows, updates), replay = self.recorder.capture(computation)
            if self._is_stale():
                raise ArgumentError("a step changes a buffer of the model or an attribute of the objective")
        except MemoryError:
            return None  # the caller tries again, once the traceback no longer keeps arrays alive
        except Exception as error:  # whatever it is: an eager step raises it too, or works without graphs
            self._disable(f"{type(error).__name__}: {error}")
            return None
        finally:
            snapshot.restore_buffers()
            after = [p for p in self.optimizer.steps if p.leaf.grad is not None]
            before.restore_counts(self.optimizer)
            self.optimizer.zero_grad()
            for p in foreign:  # their gradients may be in the graph's memory
                p.zero_grad()
            stopped.fill(0)
        return StepGraph(feed, replay, numbers, rows, ignored, after, list(map(fixed_part, updates)), dict(self.optimizer.moments))

    def _disable(self, reason: str, level: int = logging.WARNING) -> None:
        """Stop capturing. level: of the log line; INFO for reasons in the objective, since training captures by default."""
        self._disabled = True
        self._graphs.clear()
        logger.log(level, "steps are not captured in CUDA graphs: %s", reason)


def _bucket(part: Batch) -> Bucket:
    return bucket_for(part.tokens.packing.lengths)


def _are_same(attributes: dict[str, Any], were: dict[str, Any]) -> bool:
    """Whether the attributes are the same objects, or equal values of plain types."""
    return attributes.keys() == were.keys() and all(
        value is were[name] or (isinstance(value, PLAIN) and type(value) is type(were[name]) and value == were[name])
        for name, value in attributes.items()
    )

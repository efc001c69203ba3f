"""One sweep's tasks on a Dask cluster: handed out, watched, and added up along the tree.

A task takes a run of blocks.  Runs are long, but the last ones of each home are cut shorter, so
that all threads end together.  What tasks find stays where it was found; as soon as the parts of a
larger run are there, a task adds them up on one of the workers that have them, and then they are
let go of.  So a cluster holds few results at a time, whatever the number of tasks.

Blocks are taken in cells of a few, and runs are nodes of a binary tree over the cells.  A cell is
one block where there are many tasks, so these are the nodes in which blocks are added up, and each
brings home one sum.  Where only a few tasks a thread are worth the scheduler's time, cells are
such that all threads get the same; then each task brings home the sums of several nodes
(``Part``).

**Stragglers.** A thread becomes idle when no run is left to be given out, and those under way
should take no longer than their length says.  Runs that do are swept by idle workers as well, in
pieces; what comes first counts, and the bits are the same.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from dask.sizeof import sizeof
from distributed import Client

from dgmm.engine.cuts import Cut, Node
from dgmm.engine.workers import Watch, tasks_under_way
from dgmm.kernels.sweep import PairwiseSum
from dgmm.model.statistics import Mergeable

T = TypeVar("T", bound=Mergeable)

FAN_IN: Final = 16
"""How many results one task adds up at most: a power of two."""

LARGE_BYTES: Final = 512 << 10
"""From which size on only two are added up at a time."""

RETRIES: Final = 2
"""How often Dask runs a failed sum again."""

LATE: Final = 1.25
"""How many times as long as expected a run may take before others help."""

AT_LEAST: Final = 0.25
"""The shortest time, in seconds, worth waiting for."""

PIECES: Final = 4
"""How many heights the pieces of a late run are below it, at most."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """What was found in a run: sums of nodes of the tree over blocks (height, number, sum)."""

    nodes: tuple[tuple[int, int, T], ...]


class Large(Part[T]):
    """One whose kind tells the driver that it is large."""


def part_of(values: Iterable[T], first: int, blocks: int) -> Part[T]:
    """What was found in the run of blocks from ``first`` on, of so many in all."""
    tree: PairwiseSum[T] = PairwiseSum(first)
    for value in values:
        tree.add(value)
    return _all_or_part(tree, blocks)


def add(parts: list[Part[T]], blocks: int) -> Part[T]:
    """A worker's task: runs that stand side by side as one, of so many blocks in all."""
    tree: PairwiseSum[T] = PairwiseSum()
    for part in parts:
        for node in part.nodes:
            tree.append(*node)
    return _all_or_part(tree, blocks)


def _all_or_part(tree: PairwiseSum[T], blocks: int) -> Part[T]:
    """One sum, if that is all, as it is sent to the driver; else the nodes."""
    (low, first, _), (high, last, _) = tree.nodes[0], tree.nodes[-1]
    if first << low == 0 and (last + 1) << high == blocks:
        return Part(((0, 0, tree.sum()),))
    part = Part(tuple(tree.nodes))
    return Large(part.nodes) if size_of(part) > LARGE_BYTES else part


def size_of(value: Any) -> int:
    """The bytes of a value: those of its fields, where it has such."""
    if is_dataclass(value):
        return sum(size_of(each) for each in vars(value).values())
    if isinstance(value, tuple):
        return sum(map(size_of, value))
    return int(sizeof(value))


sizeof.register(Part, size_of)


Start = Callable[[str, list[Node], dict[str, Any]], list[Any]]
"""Starts tasks, their keys' name first, of runs, with options that say where; their futures."""


@dataclass
class Runs:
    """The runs of one sweep under way, and the sums of those that are done.

    Attributes
    ----------
    client : Client
    name : str
        Never used before, so that no old result is taken for a new one.
    cut : Cut
    start : Start
    on_done : callable
        Told the span of each run that is done, once.
    threads : dict of str to int
        Who may take part, and with how many threads.
    """

    client: Client
    name: str
    cut: Cut
    start: Start
    on_done: Callable[[int, int], object]
    threads: dict[str, int]
    _began: float = field(default_factory=time.monotonic)
    _events: SimpleQueue[tuple[Node, Any]] = field(default_factory=SimpleQueue)
    _futures: dict[Node, list[Any]] = field(default_factory=dict)  # of nodes under way
    _queues: dict[Node, deque[Node]] = field(default_factory=dict)  # of runs, as given out
    _since: dict[Node, float] = field(default_factory=dict)  # when they had begun
    _parts: dict[Node, dict[Node, Any]] = field(default_factory=dict)  # of nodes, as they come
    _done: set[Node] = field(default_factory=set)
    _left: set[Node] = field(default_factory=set)  # runs that are not done
    _count: int = 0
    _large: bool | None = None
    _idle_since: float = 0.0
    _next_look: float = 0.0
    _helped: set[Node] = field(default_factory=set)
    _piece_of: dict[Node, Node] = field(default_factory=dict)

    def give_out(self, runs: list[Node], home: dict[str, Any]) -> None:
        """Have ``runs`` swept, with options that say where."""
        self._left.update(runs)
        self._count += len(runs)
        queue = deque(runs)
        self._queues.update((run, queue) for run in runs)
        self._follow(runs, self.start(f"dgmm-sweep-{self.name}", runs, home))

    def whole(self, watch: Watch) -> Any:
        """The future of the sum of all, when it is done; raises what a failed task does."""
        while True:
            ready: list[Node] = []
            for node, future in self._arrived(watch.pause):
                watch.heard()
                if (whole := self._settle(node, future, ready)) is not None:
                    return whole
            self._add_up(ready, "dgmm-add", {})
            watch.look()
            self._help()

    @property
    def seconds(self) -> float:
        """For how long they are under way."""
        return time.monotonic() - self._began

    def failed(self) -> Iterator[tuple[int, int]]:
        """The spans of runs that failed."""
        for node, futures in self._futures.items():
            if node in self._left and any(future.status == "error" for future in futures):
                yield self.cut.row_range(node)

    def release(self) -> None:
        """Let go of all that is left."""
        for futures in (*self._futures.values(), *(each.values() for each in self._parts.values())):
            for future in futures:
                future.release()

    def _follow(self, nodes: list[Node], futures: list[Any]) -> None:
        for node, future in zip(nodes, futures, strict=True):
            self._futures.setdefault(node, []).append(future)
            future.add_done_callback(partial(self._tell, node))

    def _tell(self, node: Node, future: Any) -> None:
        self._events.put((node, future))

    def _arrived(self, seconds: float) -> Iterator[tuple[Node, Any]]:
        """What is done, as soon as anything is."""
        if len(self._left) < sum(self.threads.values()):
            seconds = min(seconds, AT_LEAST)
        try:
            yield self._events.get(timeout=seconds)
            while True:
                yield self._events.get_nowait()
        except Empty:
            return

    def _settle(self, node: Node, future: Any, ready: list[Node]) -> Any:
        """Take in what was found of a node; nodes to add up become ``ready``.

        Gives the future if that is all.
        """
        if node in self._done:  # another was faster
            return None
        if future.status in ("error", "cancelled"):
            future.result()
        self._done.add(node)
        if node in self._left:
            self._left.remove(node)
            self._note_start(node)
            self.on_done(*self.cut.row_range(node))
        for other in self._needless(node):
            if other is not future:
                other.release()
        if self.cut.row_range(node) == (0, self.cut.blocks):
            self._parts[node] = {node: future}
            return future
        above = self._above(node, future)
        if above in self._done:
            future.release()
            return None
        parts = self._parts.setdefault(above, {})
        parts[node] = future
        first, last = self.cut.row_range(above)
        if sum(stop - start for start, stop in map(self.cut.row_range, parts)) < last - first:
            return None
        if len(parts) == 1:  # at the end there may be no others
            return self._settle(above, future, ready)
        ready.append(above)
        return None

    def _note_start(self, run: Node) -> None:
        """Runs of a home begin in their order: those before one that is done have begun by now."""
        queue, now = self._queues[run], time.monotonic()
        while run not in self._since:
            self._since[queue.popleft()] = now

    def _needless(self, node: Node) -> Iterator[Any]:
        """What was for the sake of a node that is done."""
        yield from self._futures.pop(node, ())
        yield from self._parts.pop(node, {}).values()
        if node not in self._helped:
            return
        for known in (self._futures, self._parts):
            for below in [each for each in known if each[0] < node[0] and _within(each, node)]:
                yield from self._futures.pop(below, ())
                yield from self._parts.pop(below, {}).values()
                self._done.add(below)

    def _above(self, node: Node, future: Any) -> Node:
        """The run that a run is added up to, as large as may be at once."""
        height, number = node
        if self._large is None:  # as the first is, so are all, or they would not meet
            self._large = future.type is not None and issubclass(future.type, Large)
        if self._large:
            return height + 1, number // 2
        if node in self._piece_of:
            return self._piece_of[node]
        fan = FAN_IN.bit_length() - 1
        above = self.cut.long + fan * (1 + max(0, height - self.cut.long) // fan)
        return above, number >> (above - height)

    def _add_up(self, nodes: list[Node], name: str, home: dict[str, Any]) -> None:
        """Have nodes added up whose parts are there."""
        nodes = [node for node in nodes if node not in self._done]
        if not nodes:
            return

        def side_by_side(parts: dict[Node, Any]) -> list[Any]:
            return [parts[part] for part in sorted(parts, key=self.cut.row_range)]

        futures = self.client.map(
            add,
            [side_by_side(self._parts[node]) for node in nodes],
            [self.cut.blocks] * len(nodes),
            key=[(f"{name}-{self.name}", *node) for node in nodes],
            retries=RETRIES,
            priority=5,
            pure=False,
            **home,
        )
        now = time.monotonic()
        self._since.update((node, now) for node in nodes)
        self._follow(nodes, futures)

    def _help(self) -> None:
        """Have what is late done by idle workers, too."""
        now, threads = time.monotonic(), min(sum(self.threads.values()), self._count)
        if len(self._left) >= threads or now < self._next_look:
            return
        self._idle_since = self._idle_since or now
        pace = (self._idle_since - self._began) * threads / self.cut.blocks

        def is_late(node: Node) -> bool:
            length = self.cut.cell << node[0] if node in self._left else 1
            since = self._since.get(node, self._idle_since)
            return now - since > max(AT_LEAST, LATE * pace * length)

        late = sorted(node for node in self._futures.keys() - self._helped if is_late(node))
        if not late:
            return
        self._next_look = now + AT_LEAST
        keys = {future.key for node in late for future in self._futures[node]}
        idle = {
            worker: self.threads[worker] - len(busy)
            for worker, busy in tasks_under_way(self.client).items()
            if len(busy) < self.threads.get(worker, 0) and not keys.intersection(busy)
        }
        if not idle:
            return
        home = {"workers": list(idle)}
        deeper = min(PIECES, (2 * sum(idle.values()) // len(late)).bit_length())
        runs = [node for node in late if node in self._left]
        piece_of = {piece: node for node in runs for piece in self.cut.pieces(node, deeper)}
        pieces = list(piece_of)
        self._piece_of.update((piece, run) for piece, run in piece_of.items() if piece != run)
        self._helped.update(late, pieces)
        self._follow(pieces, self.start(f"dgmm-help-{self.name}", pieces, home))
        self._add_up([node for node in late if node not in self._left], "dgmm-add-again", home)


def _within(node: Node, other: Node) -> bool:
    """Whether a node is a part of another one."""
    return node[1] >> (other[0] - node[0]) == other[1]

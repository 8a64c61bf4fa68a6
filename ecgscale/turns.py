"""Trials of one process side by side: each in a thread of its own, one running at a time, all on one stream of records.

Whoever is furthest behind goes on, as far as the next batch; what one has read and made of the records of that batch,
the others are given. Nothing but that is shared, so that every trial is the ordinary one, bit for bit. Or they meet at
every step, and one computes it for all (`in_common`). What a trial is, this module doesn't know; a process that runs
one alone never waits here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

Own = tuple[Callable[[], Any], Callable[[Any], None]]
"""What the process has one of, and every member its own, such as random generators: keeps it, restores it."""


class _Member:
    """One of those that take turns.

    Attributes:
        turn: released when it may run.
        place: how far it is: the step, and the batches that it has evaluated since.
        waited_s: for its turn, in all, less its share of what others computed for it.
        brought: to the meeting that it waits for, if it does.
        found: at its last meeting: a result, or what was raised.
    """

    def __init__(self, group: _Group) -> None:
        self.group = group
        self.turn = threading.Lock()
        self.turn.acquire()
        self.place = (-1, 0)
        self.waited_s = 0.0
        self.brought: tuple[Any] | None = None
        self.found: tuple[Any, BaseException | None] = (None, None)

    def wait(self) -> None:
        """Gives the turn to whoever is to go on, and waits for it to come back."""
        following = self.group.next()
        if following is self:
            return
        started = time.perf_counter()
        keep, restore = self.group.own
        kept = keep()
        following.turn.release()
        self.turn.acquire()
        restore(kept)
        self.waited_s += time.perf_counter() - started


class _Group:
    """Only the member that runs touches it.

    Attributes:
        n_beside: how many others each member began with.
        made: what was read last, under its key.
        of_all: what holds for the process until the last member has ended.
    """

    def __init__(self, n: int, own: Own) -> None:
        self.members = [_Member(self) for _ in range(n)]
        self.own = own
        self.n_beside = n - 1
        self.made: tuple[Hashable, Any] | None = None
        self.of_all = ExitStack()
        self.entered: set[str] = set()

    @property
    def all_wait(self) -> bool:
        return all(member.brought is not None for member in self.members)

    def next(self) -> _Member:
        """Who is furthest behind; those who wait for the others last, to hold the meeting."""
        return min(self.members, key=lambda member: (member.brought is not None, member.place))

    def meet(self, holder: _Member, do: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        """Everybody's result; each is charged an equal share of the time."""
        started = time.perf_counter()
        met = tuple(self.members)
        error: BaseException | None = None
        results: Sequence[Any] = (None,) * len(met)
        try:
            results = do([member.brought[0] for member in met if member.brought is not None])
        except Exception as raised:
            error = raised
        taken_s = time.perf_counter() - started
        for member, result in zip(met, results, strict=True):
            member.brought, member.found = None, (result, error)
            member.waited_s -= taken_s / len(met)
        holder.waited_s += taken_s

    def leave(self, member: _Member) -> None:
        self.members.remove(member)
        if self.members:
            self.next().turn.release()


_here = threading.local()


def _member() -> _Member | None:
    found: _Member | None = getattr(_here, "member", None)
    return found


def side_by_side(tasks: Sequence[Callable[[], T]], stop: Callable[[str], None], own: Own) -> Generator[T, None, None]:
    """Runs tasks in turns; what each returns, as they end.

    Args:
        stop: told why all of them are to end soon, when nobody waits for them any more or one has failed.
        own: restored when a member goes on.

    Raises:
        BaseException: what a task has raised, after all have ended.
    """
    group = _Group(len(tasks), own)
    ends: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run(member: _Member, task: Callable[[], T]) -> None:
        member.turn.acquire()
        _here.member = member
        end: tuple[T | None, BaseException | None]
        try:
            end = (task(), None)
        except BaseException as error:
            end = (None, error)
        group.leave(member)
        ends.put(end)

    threads = [
        threading.Thread(target=run, args=pair, name=f"side by side {number}")
        for number, pair in enumerate(zip(group.members, tasks, strict=True))
    ]
    first = group.next()
    with group.of_all:
        for thread in threads:
            thread.start()
        first.turn.release()
        n_left = len(threads)
        try:
            while n_left:
                result, error = ends.get()
                n_left -= 1
                if error is not None:
                    raise error
                yield result  # type: ignore[misc]
        finally:
            if n_left:
                stop("what ran beside it has ended")
            for thread in threads:
                thread.join()


def at_step(step: int | None) -> None:
    """Called before the batch of a step is read, or, without one, the next that is evaluated: lets others catch up."""
    me = _member()
    if me is None:
        return
    me.place = (step, 0) if step is not None else (me.place[0], me.place[1] + 1)
    me.wait()


def in_common(mine: Any, do: Callable[[Sequence[Any]], Sequence[T]]) -> T:
    """Waits until all who are left have come here, and gives this one's part of what one of them then computes for all.

    Args:
        do: what all have brought → the result of each.

    Raises:
        Exception: what `do` has raised, to all of them.
    """
    me = _member()
    if me is None:
        return do([mine])[0]
    me.brought = (mine,)
    while me.brought is not None:
        if me.group.all_wait:
            me.group.meet(me, do)
        else:
            me.wait()
    (result, error), me.found = me.found, (None, None)
    if error is not None:
        raise error
    found: T = result
    return found


def once(key: Hashable, make: Callable[[], T]) -> T:
    """What another made under the same key since the last key, or `make()`."""
    me = _member()
    if me is None:
        return make()
    if me.group.made is None or me.group.made[0] != key:
        me.group.made = None  # frees the former before the next is made
        me.group.made = (key, make())
    made: T = me.group.made[1]
    return made


def is_alone() -> bool:
    """Nobody else wants what this thread makes."""
    return _member() is None


def n_beside() -> int:
    """How many others this thread began to take turns with; 0 for one that is alone."""
    me = _member()
    return me.group.n_beside if me is not None else 0


@contextmanager
def of_the_process(name: str, context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Enters what changes the whole process: the first for all who take turns, until the last of them has ended."""
    me = _member()
    if me is None:
        with context():
            yield
        return
    if name not in me.group.entered:
        me.group.of_all.enter_context(context())
        me.group.entered.add(name)
    yield


def clock() -> float:
    """Seconds, of which those don't count in which others had their turns."""
    me = _member()
    return time.perf_counter() - (me.waited_s if me is not None else 0.0)

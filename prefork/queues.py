"""The accept queues of a pool: one that its workers share, or (reuse_port) one for each.

The master, which owns every queue for as long as it lives: a worker that dies
leaves its queue to the next, and one that is not replaced answers its queue
before that is closed. It accepts nothing.
"""

import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prefork import log
from prefork.errors import PreforkError
from prefork.sockets import SharedSocket, endpoint_of


@dataclass(slots=True)
class Queue:
    """A worker's listeners: one for each place of the pool.

    keys: what tells them from others. served_again: those that somebody may
    serve after this process.
    """

    sockets: Sequence[socket.socket]
    keys: Sequence[str] = ()
    served_again: Collection[socket.socket] = ()
    shared: list[SharedSocket] = field(default_factory=list)
    is_doomed: bool = False  #: no new client is let in; it is closed when its worker has gone


class Queues:
    """first: those that are there from the beginning.

    open_more: opens the queue of a number, for pools that have one for each
    worker. close: closes what nobody serves any more.
    """

    def __init__(
        self,
        first: Iterable[Queue],
        *,
        open_more: Callable[[int], Queue] | None = None,
        close: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self._queues = dict(enumerate(first))
        self._open_more = open_more
        self._close = close

    def __getitem__(self, number: int) -> Queue:
        return self._queues[number]

    def served(self) -> set[str]:
        """Return the keys of all listeners that serve on."""
        return {key for q in self._queues.values() if not q.is_doomed for key in q.keys}

    def open(self) -> None:
        """Make all sockets such that workers can share them."""
        for queue in self._queues.values():
            self._share(queue)

    def restore(self) -> None:
        """Leave all sockets as they were found."""
        for shared in self._every():
            shared.restore()

    def shut(self) -> None:
        """Let no new clients in: the pool stops."""
        for shared in self._every():
            if not shared.refuse_new():
                log.debug("master.door_open", at=endpoint_of(shared.socket))

    def has_clients(self) -> bool:
        """Tell whether somebody waits in one of them."""
        return any(shared.has_clients() for shared in self._every())

    def pick(self, staying: Collection[int]) -> int:
        """Return the queue for a new worker. staying: those of the workers that will be there."""
        uses = Counter({n: 0 for n, queue in self._queues.items() if not queue.is_doomed})
        uses.update(n for n in staying if n in uses)
        number, count = min(uses.items(), key=lambda item: item[1], default=(-1, 1))
        if self._open_more is None or count == 0:
            return number
        fresh = next(n for n in range(len(self._queues) + 1) if n not in self._queues)
        try:
            self._queues[fresh] = self._open_more(fresh)
        except PreforkError as error:
            if number < 0:
                raise
            log.warning("queue.not_opened", reason=error, remedy="two workers share one")
            return number
        self._share(self._queues[fresh])
        return fresh

    def leave(self, number: int, staying: Collection[int], target: int) -> int:
        """Take note that a worker goes; return its listeners that nobody serves then, as bits.

        staying: the queues of those that stay; target: how many workers there
        will be.
        """
        queue = self._queues.get(number)
        serving = sum(not q.is_doomed for q in self._queues.values())
        if queue is None or self._open_more is None or number in staying:
            return 0
        if serving <= max(1, target):
            return 0
        queue.is_doomed = True
        others = self.served()
        doomed = 0
        for n, (key, shared) in enumerate(zip(queue.keys, queue.shared, strict=True)):
            if key not in others:
                shared.refuse_new()
                doomed |= 1 << n
        return doomed

    def drop(self, number: int, used: Collection[int]) -> None:
        """Close a queue whose last worker has gone, if nobody is to come. used: by the others."""
        queue = self._queues.get(number)
        if queue is not None and queue.is_doomed and number not in used and self._close is not None:
            del self._queues[number]
            others = {key for q in self._queues.values() for key in q.keys}
            self._close([key for key in queue.keys if key not in others])

    def has_doomed(self) -> bool:
        """Tell whether one of them is to be closed."""
        return any(queue.is_doomed for queue in self._queues.values())

    def drop_drained(self, drained: Collection[str]) -> list[int]:
        """Close the doomed queues in which nobody is left, of these listeners; return which.

        As long as one is open the kernel leads its share of the new clients to it.
        """
        others = self.served()
        found = [
            number
            for number, queue in self._queues.items()
            if queue.is_doomed and all(key in drained or key in others for key in queue.keys)
        ]
        for number in found:
            self.drop(number, ())
        return found

    def _every(self) -> Iterator[SharedSocket]:
        # Listeners that are not of one queue alone come once.
        seen: dict[int, SharedSocket] = {}
        for queue in self._queues.values():
            for shared in queue.shared:
                seen.setdefault(shared.socket.fileno(), shared)
        return iter(seen.values())

    def _share(self, queue: Queue) -> None:
        queue.shared = [
            SharedSocket(sock, for_good=sock not in queue.served_again) for sock in queue.sockets
        ]

"""Messages of the simulated machine, which arrive late and in any order, and the mbarriers that count their bytes."""

import random
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnbench.impls.numba_cuda.simulated_faults import SimulationError

if TYPE_CHECKING:
    from rnnbench.impls.numba_cuda.simulated_machine import Cluster, SharedMemory, Thread

MAX_BYTES = 2**20 - 1
"""Maximum number of bytes that an mbarrier can count."""


class Message(NamedTuple):
    """A float32 in flight to an element of block ``to``; ``clock`` is the sender's clock at the time of sending."""

    sender: "Thread"
    to: int
    memory: "SharedMemory"
    element: int
    value: Any
    mbarrier: "Mbarrier"
    clock: np.ndarray

    def arrive(self) -> None:
        self.memory.deliver(self.element, self.value, self.mbarrier.next_phase())
        self.mbarrier.count_in(self)


class Mbarrier:
    """An mbarrier with one arrival per phase; ``over`` counts finished phases, ``number`` is its entry in the clocks."""

    def __init__(self, maker: "Thread", number: int, name: str) -> None:
        self.name, self.over = name, 0
        self._number, self._made = number, maker.now
        self._expected, self._arrived, self._bytes = 0, False, 0
        self._clock = np.zeros_like(maker.clock)
        self._published: list[np.ndarray] = []
        self._waited: Counter[Thread] = Counter()

    def check_made(self, thread: "Thread") -> None:
        if not self._made.known_to(thread, 0):
            raise thread.fault(f"uses {self.name} before a barrier says that it was made")

    def next_phase(self) -> Any:
        """The access that threads know of once they have waited for the current phase."""
        return self._made._replace(number=self._number, time=self.over + 1, who=f"a message to {self.name}")

    def expect(self, thread: "Thread", count: int) -> None:
        if self._arrived:
            raise thread.fault(f"arrives at {self.name} twice in a phase")
        if not 0 <= count <= MAX_BYTES:
            raise thread.fault(f"expects {count} bytes at {self.name}; expected at most {MAX_BYTES}")
        self._arrived, self._expected = True, count
        np.maximum(self._clock, thread.release(), out=self._clock)
        self._end_phase()

    def count_in(self, message: Message) -> None:
        """Count a message: it comes after its sender's earlier actions, but makes only itself visible."""
        self._bytes += 4
        np.maximum(self._clock[1], message.clock[1], out=self._clock[1])
        self._end_phase()

    def wait(self, thread: "Thread", parity: int) -> None:
        mine = self._waited[thread]
        if parity != mine % 2:
            raise thread.fault(f"waits at {self.name} for a phase of parity {parity}; its next one has {mine % 2}")
        thread.wait_while(lambda: self.over % 2 == parity, self.name.removeprefix("the "))
        if self.over > mine + 1:
            raise thread.fault(f"waits at {self.name} for its phase {mine} when {self.over} are over")
        self._waited[thread] += 1
        thread.learn(self._published[mine])

    def check_idle(self) -> None:
        if self._arrived or self._bytes:
            raise SimulationError(f"{self.name} is left within a phase, with {self._bytes} bytes of {self._expected}")

    def _end_phase(self) -> None:
        if self._arrived and self._bytes > self._expected:
            raise SimulationError(f"{self._bytes} bytes have come to {self.name}; it expects {self._expected}")
        if self._arrived and self._bytes == self._expected:
            self.over += 1
            self._clock[:, self._number] = self.over
            self._published.append(self._clock)
            self._expected, self._arrived, self._bytes, self._clock = 0, False, 0, np.zeros_like(self._clock)


class Post:
    """Delivers messages late, all to one block before any to another.

    Either the first block and the newest message come first, or the last block and the oldest message; with ``chance``, random
    messages are delivered at random times.
    """

    def __init__(self, clusters: "list[Cluster]", first_block: bool, chance: random.Random | None) -> None:
        self._clusters, self._first_block, self.chance = clusters, first_block, chance

    def deliver(self) -> bool:
        """Deliver one message; returns whether there was one."""
        waiting = [cluster.under_way for cluster in self._clusters if cluster.under_way]
        if not waiting:
            return False
        messages = self.chance.choice(waiting) if self.chance else waiting[0]
        messages.pop(self._next(messages)).arrive()
        return True

    def deliver_by_chance(self) -> None:
        """Deliver a random number of messages, if ``chance`` is set."""
        if self.chance and any(cluster.under_way for cluster in self._clusters):
            for _ in range(self.chance.randrange(4)):
                self.deliver()

    def _next(self, messages: list[Message]) -> int:
        if self.chance:
            return self.chance.randrange(len(messages))
        sign = 1 if self._first_block else -1
        return min(range(len(messages)), key=lambda place: (sign * messages[place].to, -sign * place))

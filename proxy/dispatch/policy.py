"""Scheduling policies: which worker's queue a request goes to. Pure.

A policy hears who is alive, sees what every live worker has to do, and names one of them. SHARED
means that it does not choose: the request waits where any idle worker takes it.
"""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Protocol

from dlbench.proxy.dispatch.ring import HashRing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.dispatch.loads import Loads

SHARED: Final = -1
# How far over its share a worker's load may go before its keys go elsewhere: anything over 1
# (Mirrokni, Thorup and Zadimoghaddam, 2016; haproxy's hash-balance-factor). brpc's default is 1.25.
BALANCE_FACTOR: Final = 1.25


class Member(NamedTuple):
    """A live worker: a name that outlives its process, and the share that it should get."""

    name: str
    weight: float = 1.0


class Policy(Protocol):
    """Chooses among live workers; seeded, so that two runs differ only in their load."""

    needs_key: ClassVar[bool]

    def join(self, members: Sequence[Member]) -> None:
        """These are alive from now on, never none; called before the first choice."""
        ...

    def choose(self, loads: Loads, key: bytes) -> int:
        """Index of the member for the next request, or SHARED.

        `loads` has one place per member. `key` says which requests are alike; it is empty unless
        `needs_key`.
        """
        ...

    def home(self, loads: Loads, key: bytes) -> int:
        """Index of the member in whose cache the result belongs; who has keys has a home for each."""
        return self.choose(loads, key)


class SharedQueue(Policy):
    """One queue for all: an idle worker takes the next batch."""

    needs_key: ClassVar = False

    def join(self, members: Sequence[Member]) -> None:
        """Whoever is alive takes from it."""

    def choose(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - it does not look
        return SHARED


class RoundRobin(Policy):
    """One after the other, whatever they have to do."""

    needs_key: ClassVar = False

    def __init__(self) -> None:
        self._turn = -1

    def join(self, members: Sequence[Member]) -> None:
        self._count = len(members)

    def choose(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - it does not look
        self._turn = (self._turn + 1) % self._count
        return self._turn


class WeightedRoundRobin(Policy):
    """Shares in proportion to the weights, spread evenly (WF2Q: Bennett and Zhang, 1996).

    With a share of p a worker's k-th request belongs into the period from k/p to (k+1)/p, counted
    in requests of all. Of the periods that have begun, the one that ends first is served: nobody
    runs ahead of its share, as the heavy ones do where only the ends are compared.
    """

    needs_key: ClassVar = False

    def join(self, members: Sequence[Member]) -> None:
        total = sum(member.weight for member in members)
        self._periods = [total / member.weight for member in members]
        self._served = [0] * len(members)
        self._slot = 0
        self._begun: list[tuple[float, int]] = []  # heap of (end of the period, worker)
        self._ahead = [(0.0, index) for index in range(len(members))]  # of (its begin, worker)

    def choose(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - it does not look
        begun, ahead, served, periods = self._begun, self._ahead, self._served, self._periods
        # One has always begun, but for rounding.
        while ahead and (ahead[0][0] <= self._slot or not begun):
            index = heappop(ahead)[1]
            served[index] += 1
            heappush(begun, (served[index] * periods[index], index))
        next_period = heappop(begun)
        heappush(ahead, next_period)
        self._slot += 1
        return next_period[1]


class Random(Policy):
    """Any, with equal chance."""

    needs_key: ClassVar = False

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed).random

    def join(self, members: Sequence[Member]) -> None:
        self._count = len(members)

    def choose(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - it does not look
        return int(self._random() * self._count)


class LeastOutstanding(Policy):
    """The one with the fewest requests waiting or running; of equals the first."""

    needs_key: ClassVar = False

    def join(self, members: Sequence[Member]) -> None:
        """It looks at the loads alone."""

    def choose(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - all keys are alike
        return loads.outstanding.index(min(loads.outstanding))


class PowerOfTwoChoices(Policy):
    """The less loaded of two different ones taken at random (Mitzenmacher, 2001)."""

    needs_key: ClassVar = False

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed).random

    def join(self, members: Sequence[Member]) -> None:
        self._count = len(members)

    def choose(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - all keys are alike
        one = int(self._random() * self._count)
        other = (one + 1 + int(self._random() * (self._count - 1))) % self._count
        return one if loads.outstanding[one] <= loads.outstanding[other] else other


class ShortestResponseTime(Policy):
    """The one that should be first to answer one more row; of equals the first."""

    needs_key: ClassVar = False

    def join(self, members: Sequence[Member]) -> None:
        """It looks at the loads alone."""

    def choose(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - all keys are alike
        return loads.wait_ns.index(min(loads.wait_ns))


class ConsistentHash(Policy):
    """The key's owner on a hash ring, unless its load is over its share (bounded loads).

    A full owner's requests go to the next ones on the ring, then to the owners of random points:
    walking on from a hot key would pass most of the workers for each of its requests, while those
    that are full own at most 1/BALANCE_FACTOR of the points.
    """

    needs_key: ClassVar = True

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed).random
        self._unit = 0.0

    def join(self, members: Sequence[Member]) -> None:
        total = sum(member.weight for member in members)
        # Fixed at the first join: another scale would move keys between those that stay.
        self._unit = self._unit or total / len(members)
        self._ring = HashRing(members, self._unit)
        self._bounds = [BALANCE_FACTOR * member.weight / total for member in members]

    def home(self, loads: Loads, key: bytes) -> int:  # noqa: ARG002 - a full owner still knows
        return self._ring.near(key)[0]

    def choose(self, loads: Loads, key: bytes) -> int:
        outstanding, bounds, total = loads.outstanding, self._bounds, loads.total + 1
        for index in self._ring.near(key):
            if outstanding[index] < bounds[index] * total:
                return index
        owners = self._ring.owners
        while True:  # the bounds add up to more than there is: somebody has room
            index = owners[int(self._random() * len(owners))]
            if outstanding[index] < bounds[index] * total:
                return index


POLICIES: dict[str, Callable[[], Policy]] = {
    "shared_queue": SharedQueue,
    "round_robin": RoundRobin,
    "weighted_round_robin": WeightedRoundRobin,
    "random": Random,
    "least_outstanding": LeastOutstanding,
    "power_of_two_choices": PowerOfTwoChoices,
    "shortest_response_time": ShortestResponseTime,
    "consistent_hash": ConsistentHash,
}

"""Sharing memory by lifetime: buffers that are never alive together get the same bytes.

Offsets are chosen greedily, largest buffer first, each at the lowest offset that is free during its lifetime:
close to the optimum for networks, and independent of anything but shapes.
"""

import bisect
import functools
import operator
from dataclasses import dataclass, field

ALIGNMENT = 256  # bytes: whole cache lines, and what coalesced GPU accesses want


@dataclass(eq=False)
class Buffer:
    """Bytes needed during some spans of time (first, last), both inclusive. offset is set by `place`."""

    label: str
    nbytes: int
    spans: list[tuple[int, int]] = field(default_factory=list)
    offset: int = -1

    def use(self, first: int, last: int) -> None:
        self.spans.append((min(first, last), max(first, last)))

    def extend(self, time: int) -> None:
        """Keep the content from its first span to this time."""
        first, last = self.spans[0]
        self.spans[0] = (min(first, time), max(last, time))

    def lifetime(self) -> int:
        """Its times as the bits of a number: two buffers are alive together where both have the same one."""
        return functools.reduce(operator.or_, ((2 << last) - (1 << first) for first, last in self.spans), 0)


def place(buffers: list[Buffer]) -> int:
    """Give every buffer an offset; returns the bytes needed in all."""
    placed: list[tuple[int, int, int]] = []  # (offset, end, lifetime), by offset
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.spans[0])):
        size, alive = _rounded(buffer.nbytes), buffer.lifetime()
        offset = 0
        for begin, end, others in placed:
            if others & alive:
                if offset + size <= begin:
                    break
                offset = max(offset, end)
        buffer.offset = offset
        bisect.insort(placed, (offset, offset + size, alive))
        total = max(total, offset + size)
    return total


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT

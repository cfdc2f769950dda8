"""Sharing memory by lifetime: buffers that are never alive together get the same bytes.

Offsets are chosen greedily, largest buffer first, each at the lowest offset that is free during its lifetime:
close to the optimum for networks, and independent of anything but shapes.
"""

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

    def meets(self, other: "Buffer") -> bool:
        return any(a <= d and c <= b for a, b in self.spans for c, d in other.spans)


def place(buffers: list[Buffer]) -> int:
    """Give every buffer an offset; returns the bytes needed in all."""
    placed: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.spans[0])):
        size = _rounded(buffer.nbytes)
        offset = 0
        for other in sorted((p for p in placed if p.meets(buffer)), key=lambda p: p.offset):
            if offset + size <= other.offset:
                break
            offset = max(offset, other.offset + _rounded(other.nbytes))
        buffer.offset = offset
        placed.append(buffer)
        total = max(total, offset + size)
    return total


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT

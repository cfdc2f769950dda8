"""Buffers that are alive together never overlap, and those that are not share memory."""

import random

from normcore.graph.memory import Buffer, place


def overlap(a, b):
    return a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes


def test_random_lifetimes_never_collide():
    draw = random.Random(4)
    for _ in range(50):
        buffers = []
        for k in range(40):
            first = draw.randrange(30)
            buffer = Buffer(str(k), draw.randrange(1, 5000), [(first, first + draw.randrange(6))])
            if draw.random() < 0.3:
                later = draw.randrange(30)
                buffer.use(later, later)
            buffers.append(buffer)
        total = place(buffers)
        for i, a in enumerate(buffers):
            assert a.offset % 256 == 0 and a.offset + a.nbytes <= total
            for b in buffers[i + 1 :]:
                assert not (a.lifetime() & b.lifetime() and overlap(a, b)), (a, b)
        assert total < sum(b.nbytes for b in buffers)


def test_a_chain_needs_two_buffers():
    buffers = [Buffer(str(k), 1024, [(k, k + 1)]) for k in range(10)]
    assert place(buffers) == 2048

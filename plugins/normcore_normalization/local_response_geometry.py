"""How the kernels of local response normalization see an array, and how much of it they take at once."""

import math

TILE = 512  # positions of a ring's rows: the rows of backward, 14 when size is 5, stay in the L1 cache
LINE = 1024  # elements of a line that holds several rows of channels
TASKS = 64
VECTOR = 64  # lines are padded to this many elements, so that powers never leave a vector's remainder
RUN = 16  # channels that a CUDA thread takes one after the other


class Geometry:
    """How the kernels see an array. rows: its shape for the CPU kernels; box: (A, D, H, W, B)."""

    def __init__(self, size, region, shape, format):
        last = format == "channels_last" or len(shape) == 2
        spatial = shape[2:]
        positions = math.prod(spatial)
        front = size // 2
        self.before, self.window = (0, 0, front), (1, 1, size)
        if region == "across":
            self.box = (
                (shape[0] * positions, 1, 1, shape[1], 1) if last else (shape[0], 1, 1, shape[1], positions)
            )
        else:
            rank = len(spatial)
            self.before = (0,) * (3 - rank) + (front,) * rank
            self.window = (1,) * (3 - rank) + (size,) * rank
            axes = (1,) * (3 - rank) + tuple(spatial)
            self.box = (shape[0], *axes, shape[1]) if last else (shape[0] * shape[1], *axes, 1)
        a, d, h, w, b = self.box
        if self.window[1] > 1:
            self.kind, self.rows, self.tile = "map", (a, d, h, w * b), 0
            tasks = max(1, min(TASKS, a * d * h))
            self.scratch = (tasks, 4, _padded((w + size - 1) * b))
        elif b > 1:
            self.kind, self.rows = "ring", (a, w, b)
            tiles = -(-b // max(VECTOR, TILE * 5 // max(5, size)))
            self.tile = -(-b // max(1, tiles))
            tasks = max(1, min(TASKS, a * tiles))
            self.scratch = (tasks, 2 * size + front + 3, _padded(self.tile))
        else:
            self.kind, self.rows = "row", (a, w)
            self.tile = max(1, min(a, LINE // (w + size - 1)))
            tasks = max(1, min(TASKS, -(-a // self.tile)))
            self.scratch = (tasks, 5, _padded(self.tile * (w + size - 1)) + size - 1)
        self.run = RUN if b > 1 else 1
        self.items = a * d * h * -(-w // self.run) * b


def _padded(count):
    return -(-count // VECTOR) * VECTOR

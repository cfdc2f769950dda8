"""The arithmetic of windows that slide over spatial dimensions, shared by convolution and every pooling.

A window has `kernel` taps, `dilation` apart, so it spans (kernel - 1) * dilation + 1 elements. The input is
padded by `before` and `after`; window o starts at o * stride - before.

    out = (size + before + after - span) // stride + 1         ceil_mode=False: cut windows are left out
    out = ceil((size + before + after - span) / stride) + 1    ceil_mode=True; less one when the last window
            would start at size + before or later, in the right padding (PyTorch, Caffe, ONNX 22)
    padding="same": out = ceil(size / stride); the padding this takes is split evenly, an odd one goes after
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normcore.errors import ParameterError, ShapeError

Sizes = int | Sequence[int]  # one number for all spatial dimensions, or one for each
Padding = int | str | Sequence[int | Sequence[int]]  # also "same", and [before, after] for each dimension


@dataclass(frozen=True)
class Window:
    """The windows along one spatial dimension: `out` of them over `size` elements."""

    size: int
    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    out: int = 1

    @property
    def span(self) -> int:
        """Elements from a window's first tap to its last, both included."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def arithmetic(self) -> str:
        """How many elements there are and what the window takes, for messages."""
        spread = f" (kernel {self.kernel}, dilation {self.dilation})" if self.dilation > 1 else ""
        total = self.size + self.before + self.after
        padded = f"{self.size} + padding {self.before} + {self.after} = {total} elements"
        return f"{padded}, window {self.span}{spread}"

    def taps(self, o: int) -> range:
        """The taps of window o that lie inside the input."""
        start = o * self.stride - self.before
        first = max(0, -(start // self.dilation))
        last = min(self.kernel, -((start - self.size) // self.dilation))
        return range(first, max(first, last))


ONE = Window(1, 1)  # a dimension that is not there


def windows(
    spatial_shape: Sequence[int],
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    *,
    op: str = "window",
    half_padding: bool = False,
) -> tuple[Window, ...]:
    """One Window for each spatial dimension.

    op names the layer in messages. half_padding: padding of more than half the kernel, or a dilated window
    whose taps all miss the input, is an error (pooling: such a window has no value). Raises ParameterError
    for a wrong parameter and ShapeError, with the arithmetic, where no window fits.
    """
    rank = len(spatial_shape)
    kernels = per_dimension("kernel_size", kernel_size, rank)
    strides = per_dimension("stride", stride, rank)
    dilations = per_dimension("dilation", dilation, rank)
    paddings = None if padding == "same" else _paddings(padding, rank)
    found = []
    for axis, size in enumerate(spatial_shape):
        k, s, d = kernels[axis], strides[axis], dilations[axis]
        span = (k - 1) * d + 1
        place = f"spatial dimension {axis} of {tuple(spatial_shape)}"
        if size < 1:
            raise ShapeError(f"{op}: {place} is empty; it needs at least one element")
        if paddings is None:
            out = -(-size // s)
            total = max(0, (out - 1) * s + span - size)
            before, after = total // 2, total - total // 2
        else:
            before, after = paddings[axis]
            if half_padding and max(before, after) > k // 2:
                raise ParameterError(
                    "padding", f"at most half of kernel_size {k}, {k // 2}, in {place}", padding
                )
            rest = size + before + after - span
            out = (rest + (s - 1 if ceil_mode else 0)) // s + 1
            if ceil_mode and (out - 1) * s >= size + before:
                out -= 1
        window = Window(size, k, s, before, after, d, out)
        if out < 1:
            raise ShapeError(
                f"{op}: no window fits in {place}: {window.arithmetic}; "
                "use a smaller kernel_size or dilation, or more padding"
            )
        if half_padding and d > 1 and not all(window.taps(o) for o in range(out)):
            raise ShapeError(
                f"{op}: a window in {place} covers nothing but padding: {window.arithmetic}; "
                "use a smaller dilation or less padding"
            )
        found.append(window)
    return tuple(found)


def per_dimension(name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """`value` as one whole number for each of `rank` spatial dimensions, or ParameterError."""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    values = tuple(value) if many else (value,) * rank
    if len(values) != rank or not all(_whole(v) and v >= least for v in values):
        numbers = (
            "a whole number" if rank == 1 else f"a whole number or {rank}, one for each spatial dimension"
        )
        raise ParameterError(name, f"{numbers}, at least {least}", value)
    return tuple(int(v) for v in values)


def check_sizes(name: str, value: Any, least: int = 1) -> None:
    """The part of per_dimension's check that needs no rank, for an op's check()."""
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not values or not all(_whole(v) and v >= least for v in values):
        numbers = "a whole number, or one for each spatial dimension"
        raise ParameterError(name, f"{numbers}, at least {least}", value)


def check_padding(value: Any) -> None:
    """The part of the padding's check that needs no rank, for an op's check()."""
    if value != "same":
        _paddings(value, len(value) if isinstance(value, Sequence) else 1)


def _paddings(padding: Any, rank: int) -> list[tuple[int, int]]:
    wanted = 'a whole number >= 0, "same", or one number or pair [before, after] for each spatial dimension'
    if isinstance(padding, str):
        raise ParameterError("padding", wanted, padding)
    values = list(padding) if isinstance(padding, Sequence) else [padding] * rank
    pairs = [tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else (v, v) for v in values]
    if len(pairs) != rank or not all(len(p) == 2 and all(_whole(v) and v >= 0 for v in p) for p in pairs):
        raise ParameterError("padding", f"{wanted} (there are {rank})", padding)
    return [(int(before), int(after)) for before, after in pairs]


def _whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)

import itertools

import pytest

from normcore.errors import ParameterError, ShapeError
from normcore.shapes import Window, windows


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_output_sizes_are_pytorchs(ceil_mode):
    torch = pytest.importorskip("torch")
    for size, k, s, d in itertools.product((2, 5, 6, 7), (1, 2, 3), (1, 2, 3), (1, 2)):
        for p in range(k // 2 + 1):
            try:
                x = torch.zeros(1, 1, 1, size)
                y = torch.nn.functional.max_pool2d(x, (1, k), (1, s), (0, p), (1, d), ceil_mode)
                expected = y.shape[-1]
            except RuntimeError:
                expected = None
            try:
                (window,) = windows((size,), k, s, p, d, ceil_mode, half_padding=True)
                assert window.out == expected, window
            except ShapeError:
                assert expected is None, (size, k, s, d, p)


def test_a_dilated_window_that_misses_the_input_is_an_error_for_pools():
    with pytest.raises(ShapeError, match="nothing but padding"):
        windows((1,), 2, 1, 1, 2, half_padding=True)


def test_same_padding_keeps_ceil_of_size_over_stride_and_puts_the_odd_element_after():
    for size, k, s, d in itertools.product(range(1, 9), range(1, 5), range(1, 4), (1, 2)):
        (w,) = windows((size,), k, s, "same", d)
        assert w.out == -(-size // s)
        assert w.after - w.before in (0, 1)
        assert (w.out - 1) * s + w.span <= size + w.before + w.after
    assert windows((4,), 2, 1, "same")[0] == Window(4, 2, 1, 0, 1, 1, 4)


def test_taps_are_those_inside_the_input():
    for size, k, s, d, p in itertools.product((1, 3, 5), (1, 2, 3), (1, 2), (1, 2), (0, 1)):
        w = Window(size, k, s, p, p, d, 4)
        for o in range(4):
            inside = [t for t in range(k) if 0 <= o * s - p + t * d < size]
            assert list(w.taps(o)) == inside


def test_numbers_for_each_dimension():
    a, b = windows((8, 9), (2, 3), (1, 2), [[0, 1], [1, 0]], 1)
    assert (a.before, a.after, a.out) == (0, 1, 8)
    assert (b.before, b.after, b.out) == (1, 0, 4)


def test_a_window_that_does_not_fit_prints_the_arithmetic():
    with pytest.raises(ShapeError, match=r"5 \+ padding 0 \+ 0 = 5 elements, window 7 "):
        windows((5,), 4, dilation=2)


@pytest.mark.parametrize(
    "parameters",
    [
        {"stride": 0},
        {"kernel_size": 0},
        {"kernel_size": (2, 2)},
        {"padding": -1},
        {"padding": "valid"},
        {"padding": [[1, 2, 3]]},
        {"padding": [1, 1]},
        {"dilation": 1.5},
        {"kernel_size": True},
    ],
)
def test_wrong_parameters(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        windows((8,), **{"kernel_size": 2, **parameters})


def test_padding_over_half_the_window_is_an_error_for_pools_only():
    with pytest.raises(ParameterError, match="at most half of kernel_size 3, 1,"):
        windows((8,), 3, 1, 2, half_padding=True)
    assert windows((8,), 3, 1, 2)[0].out == 10

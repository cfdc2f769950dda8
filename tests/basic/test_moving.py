"""flatten, reshape, permute, concat, add and multiply: numbers go where they should, in both memory
formats."""

import numpy as np
import pytest

import normcore
from normcore.errors import ParameterError, ShapeError

FORMATS = ("channels_first", "channels_last")
rng = np.random.default_rng(0)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name, parameters", [("flatten", {}), ("reshape", {"shape": (6, -1)})])
def test_views_are_in_logical_order(memory_format, name, parameters):
    x = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    layer = normcore.layer(name, input_shape=x.shape, memory_format=memory_format, **parameters)
    y = layer.forward(x)
    assert np.array_equal(y.reshape(-1), x.reshape(-1))
    assert np.array_equal(layer.backward(y), x)


@pytest.mark.parametrize(
    "dims", [(0, 2, 1), (0, 1, 2), (2, 1, 0), (0, 2, 3, 1), (0, 3, 1, 2), (0, 4, 1, 3, 2)]
)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_permute_is_numpys_transpose(dims, memory_format):
    x = rng.standard_normal((3, 37, 34, 3, 2)[: len(dims)]).astype(np.float32)
    layer = normcore.layer("permute", input_shape=x.shape, memory_format=memory_format, dims=dims)
    y = layer.forward(x)
    assert np.array_equal(y, x.transpose(dims))
    assert np.array_equal(layer.backward(np.array(y)), x)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_concat_is_numpys_and_backward_cuts(memory_format, axis):
    shapes = [[2, 5, 6, 7], [2, 5, 6, 7], [2, 5, 6, 7]]
    for shape, width in zip(shapes, (1, 40, 3), strict=True):
        shape[axis] = width
    xs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    layer = normcore.layer("concat", input_shape=shapes, memory_format=memory_format, axis=axis)
    y = layer.forward(*xs)
    assert np.array_equal(y, np.concatenate(xs, axis))
    for x, dx in zip(xs, layer.backward(np.array(y)), strict=True):
        assert np.array_equal(x, dx)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_add_and_multiply(memory_format):
    a, b, dy = rng.standard_normal((3, 4, 5, 6, 7)).astype(np.float32)[:, :4]
    add = normcore.layer("add", input_shape=[a.shape, a.shape], memory_format=memory_format)
    assert np.array_equal(add.forward(a, b), a + b)
    assert all(np.array_equal(d, dy) for d in add.backward(dy))
    multiply = normcore.layer("multiply", input_shape=[a.shape, a.shape], memory_format=memory_format)
    assert np.array_equal(multiply.forward(a, b), a * b)
    da, db = multiply.backward(dy)
    assert np.array_equal(da, dy * b) and np.array_equal(db, dy * a)


def test_errors_name_both_shapes():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 4\)"):
        normcore.layer("add", input_shape=[(2, 3), (2, 4)])
    with pytest.raises(ShapeError, match=r"\(2, 3, 4\) and \(2, 3, 5\) differ in axis 2"):
        normcore.layer("concat", input_shape=[(2, 3, 4), (2, 3, 5)])
    with pytest.raises(ParameterError, match="each axis once"):
        normcore.layer("permute", input_shape=(2, 3), dims=(0, 0))
    with pytest.raises(ShapeError, match="12 numbers"):
        normcore.layer("reshape", input_shape=(2, 3, 4), shape=(5, -1))

"""Template ops beside the built-in ops that they re-create: the time of kernels written by hand over the generated ones'.

python -m pytest benches/test_templates.py -s [--save-results FILE]

The aim is 0.83 at least: within 20 %. Both run through normcore.Layer on the same arrays, rounds interleaved, for
arrays in either memory format.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from normcore.bound_layer import Layer
from normcore.measuring.timer import interleave
from normcore.registry import default

EXAMPLES = pathlib.Path(__file__).parent.parent / "tests" / "templates" / "examples.py"
SHAPES = ((32, 96, 55, 55), (128, 64, 32, 32), (32, 256, 14, 14), (8, 64, 16, 16))
PAIRS = (
    ("plain_group_norm", "group_norm", {}),
    ("plain_lp_pool", "lp_pool", {"kernel_size": 2}),
    ("plain_lp_pool", "lp_pool", {"kernel_size": 3, "stride": 2}),
    ("plain_lp_pool", "lp_pool", {"kernel_size": 3, "stride": 2, "padding": 1, "p": 3.0}),
)


def examples():
    spec = importlib.util.spec_from_file_location("template_examples", EXAMPLES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layers(pair, shape, memory_format):
    """The generated and the written layer, each with its inputs' and gradients' arrays."""
    plain, built_in, parameters = pair
    found = {}
    for name, cls in (("template", getattr(examples(), plain)), ("by hand", default().get("op", built_in))):
        cls = getattr(cls, "component", cls)
        rng = np.random.default_rng(0)
        layer = Layer(cls.make(**parameters), shape, "cpu", "float32", memory_format, 0, {})
        x = arranged(rng.standard_normal(shape, np.float32), memory_format)
        dy = arranged(rng.standard_normal(layer.output_shape, np.float32), memory_format)
        layer.forward(x, training=True)
        layer.backward(dy)
        found[name] = layer, x, dy
    return found


def arranged(array, memory_format):
    """The same logical array in the memory format."""
    if memory_format == "channels_last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
    return array


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize(
    "pair", PAIRS, ids=lambda p: "-".join([p[1], *(f"{k}_{v}" for k, v in p[2].items())])
)
def test_within_a_fifth(benchmark, recorder, request, pair, shape, memory_format, direction):
    """Prints and records the ratio; a slow template is a result, not a failure."""

    def call(layer, x, dy):
        return (
            (lambda: layer.forward(x, training=True))
            if direction == "forward"
            else (lambda: layer.backward(dy))
        )

    timing = interleave(
        {name: call(*found) for name, found in layers(pair, shape, memory_format).items()},
        seconds=request.config.getoption("--bench-seconds"),
    )
    low, ratio, high = timing.ratio("by hand", "template")
    benchmark.extra_info.update(ratio=ratio, interval=[low, high], seconds=timing.median("template"))
    recorder.add(f"template {request.node.callspec.id}", ratio=ratio, interval=[low, high])
    print(f"\n{request.node.callspec.id}: {ratio:.2f} ({low:.2f} to {high:.2f})")
    benchmark.pedantic(lambda: None)

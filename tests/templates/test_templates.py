"""Template ops: built-in ops once more, from scalar functions, and what declarations may say."""

import importlib.util
import math
import pathlib

import numpy as np
import pytest

import normcore.testing
from normcore.bound_layer import Layer
from normcore.errors import ParameterError, PluginError
from normcore.registry import default
from normcore.templates import normalization, pooling
from normcore.templates.declaration import is_dear
from normcore.testing.samples import Sample


def _load():
    path = pathlib.Path(__file__).with_name("examples.py")
    spec = importlib.util.spec_from_file_location("examples", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


examples = _load()
BUILT_IN = {spec.name: spec.component for spec in default().all("op")}


@pytest.mark.parametrize("op", [examples.plain_group_norm, examples.plain_lp_pool], ids=lambda op: op.name)
def test_an_example_passes_the_whole_check(op):
    report = normcore.testing.check_op(op)
    assert not report.failed, [str(o) for o in report.failed]
    assert report.ok


LARGE = (16, 64, 64, 64)  # its output is written around the caches
POOL = {"kernel_size": 3, "stride": 2, "padding": 1}


@pytest.mark.parametrize(
    "op, name, parameters, shape, memory_format",
    [
        (examples.plain_group_norm, "group_norm", {"num_groups": 3}, (2, 6, 7, 5), "channels_first"),
        (examples.plain_group_norm, "group_norm", {"num_groups": 3}, (2, 6, 13, 31), "channels_last"),
        (examples.plain_group_norm, "group_norm", {"num_groups": 4}, LARGE, "channels_first"),
        (examples.plain_group_norm, "group_norm", {"num_groups": 4}, LARGE, "channels_last"),
        (examples.plain_lp_pool, "lp_pool", POOL, (2, 6, 7, 5), "channels_first"),
    ],
)
def test_it_equals_the_built_in_op(op, name, parameters, shape, memory_format):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    results = []
    for cls in (op, BUILT_IN[name]):
        layer = Layer(cls.make(**parameters), x.shape, "cpu", "float32", memory_format, 0, {})
        for key, array in layer.parameters.items():
            array[:] = np.random.default_rng(len(key)).standard_normal(array.shape)
        y = np.array(layer.forward(x, training=True))
        dy = np.random.default_rng(1).standard_normal(y.shape, np.float32)
        dx = np.array(layer.backward(dy))
        results.append([y, dx, *(np.array(g) for g in layer.gradients.values())])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(theirs).max()))


# -- other statistics, other axes ---------------------------------------------------------------------------------


@normalization(over="space", affine=False)
class spread_norm:
    """(x - mean) / (mean |x - mean| + mean (x - mean)^2 + eps) of each map: three statistics, two levels deep."""

    eps: float = 0.1

    samples = (Sample("maps", shape=(2, 3, 4, 5)),)

    def mean(x):
        return x

    def deviation(x, mean):
        return abs(x - mean)

    def variance(x, mean, deviation):
        return (x - mean) ** 2 * (1.0 + 0.1 * deviation)

    def normalize(x, mean, deviation, variance, eps):
        return (x - mean) / (deviation + variance + eps)


@normalization(over="batch")
class channel_rms:
    """x / sqrt(mean x^2 + 1e-3) of each channel over the batch."""

    samples = (Sample("maps", shape=(3, 4, 2, 5)), Sample("features", shape=(7, 3)))

    def square(x):
        return x * x

    def normalize(x, square):
        return x / math.sqrt(square + 1e-3)


@normalization(over="sample")
class soft_gate:
    """x times a gate of the sample's mean: a normalization that x enters by its mean alone, beside itself."""

    samples = (Sample("maps", shape=(3, 4, 2, 3)),)

    def mean(x):
        return x

    def normalize(x, mean):
        return x / (1.0 + math.exp(-mean))


@normalization(over="channels", source="Ba, Kiros and Hinton 2016, arXiv:1607.06450")
class position_norm:
    """Layer normalization of each position over its channels."""

    samples = (
        Sample("maps", shape=(2, 5, 3, 7)),
        Sample("several blocks of columns", shape=(2, 3, 523)),
        Sample("features", shape=(4, 9)),
    )

    def mean(x):
        return x

    def variance(x, mean):
        return (x - mean) ** 2

    def normalize(x, mean, variance):
        return (x - mean) * (1.0 / math.sqrt(variance + 1e-5))


@normalization(over="everything")
class whole_rms:
    """x / sqrt(mean x^2 + shift) of the whole batch."""

    shift: float = 1e-3

    samples = (Sample("maps", shape=(3, 4, 2, 5)), Sample("features", shape=(5, 3)))

    def square(x):
        return x * x

    def normalize(x, square, shift):
        return x / math.sqrt(square + shift)


@pooling
class soft_pool:
    """sum x e^(slope x) / sum e^(slope x): a mean that leans towards the largest."""

    slope: float = 1.5

    samples = (
        Sample("windows overlap", shape=(2, 3, 5, 6), params={"kernel_size": 3, "stride": 2}),
        Sample("stride 1, padding", shape=(1, 2, 7), params={"kernel_size": 3, "stride": 1, "padding": 1}),
        Sample("gaps", shape=(1, 2, 4, 3, 5), params={"kernel_size": (2, 1, 2), "stride": 3}),
    )

    def weights(x, slope):
        return math.exp(slope * x)

    def weighted(x, slope):
        return x * math.exp(slope * x)

    def finish(weights, weighted):
        return weighted / weights


@pooling
class mean_pool:
    """The mean of the elements inside the input, in windows too large to sum in registers."""

    samples = (Sample("25 taps", shape=(2, 3, 9, 8), params={"kernel_size": 5, "stride": 1, "padding": 2}),)

    def total(x):
        return x

    def finish(total, count):
        return total / count


OTHERS = [spread_norm, channel_rms, soft_gate, position_norm, whole_rms, soft_pool, mean_pool]


@pytest.mark.parametrize("op", OTHERS, ids=lambda op: op.name)
@pytest.mark.parametrize("check", ["value", "gradients", "formats", "bounds", "threads"])
def test_values_and_gradients(op, check):
    outcome = normcore.testing.check_one(op, check)
    assert outcome.status == "passed", str(outcome)


@pytest.mark.parametrize("op", [channel_rms, whole_rms, position_norm], ids=lambda op: op.name)
def test_what_the_batch_shares_is_declared(op):
    assert op.needs_batch == (op is not position_norm)
    assert normcore.testing.check_one(op, "batch_of_one").status == "passed"


@pytest.mark.parametrize("rank", [2, 3])
def test_over_says_which_elements_share_statistics(rank):
    """Each choice of axes against the mean that NumPy takes over them."""
    x = np.random.default_rng(0).standard_normal((4, 6, 5)[:rank])
    axes = {"sample": (1, 2), "space": (2,), "channels": (1,), "batch": (0, 2), "everything": (0, 1, 2)}
    for over, of in axes.items():

        @normalization(over=over, affine=False, name=f"centered_by_{over}")
        class centered:
            """x - mean"""

            def mean(x):
                return x

            def normalize(x, mean):
                return x - mean

        map_of = x.reshape(*x.shape[:2], -1)
        expected = (map_of - map_of.mean(of, keepdims=True)).reshape(x.shape)
        for memory_format in ("channels_first", "channels_last"):
            layer = Layer(centered.make(), x.shape, "cpu", "float64", memory_format, 0, {})
            np.testing.assert_allclose(layer.forward(x), expected, atol=1e-14)


def test_an_author_may_write_a_derivative():
    """Of what the engine cannot derive; one that is wrong shows that it is used."""

    def made(factor):
        @normalization(over="channels", affine=False, name="gamma_norm")
        class gamma_norm:
            """x - mean |x|^3, the cube by a loop."""

            samples = (Sample("features", shape=(3, 5)),)

            def cube(x):
                found = 1.0
                for _ in range(3):
                    found = found * x
                return found

            def cube_by_x(x):
                return factor * x * x

            def normalize(x, cube):
                return x - cube

        return gamma_norm

    assert normcore.testing.check_one(made(3.0), "gradients").status == "passed"
    assert normcore.testing.check_one(made(2.0), "gradients").status == "failed"
    with pytest.raises(
        PluginError, match=r"mean_by_x is the derivative of mean and takes its arguments \(x\)"
    ):

        @normalization(over="sample")
        class wrong_arguments:
            """x"""

            def mean(x):
                return x

            def mean_by_x(x, mean):
                return 1.0

            def normalize(x, mean):
                return x - mean


# -- declarations that cannot be ----------------------------------------------------------------------------------


def test_a_declaration_names_what_is_wrong():
    with pytest.raises(PluginError, match="over must be one of groups"):
        normalization(type("n", (), {"normalize": lambda x: x}), over="rows")
    with pytest.raises(PluginError, match="needs a function normalize"):

        @normalization(over="sample")
        class no_end:
            """x"""

            def mean(x):
                return x

    with pytest.raises(PluginError, match="'variance' is none of these"):

        @normalization(over="sample")
        class wrong_order:
            """x"""

            def mean(x, variance):
                return x

            def variance(x, mean):
                return x

            def normalize(x, mean, variance):
                return x

    with pytest.raises(PluginError, match="field num_groups"):

        @normalization(over="groups")
        class no_groups:
            """x"""

            def normalize(x):
                return x

    with pytest.raises(PluginError, match="summed over each window"):

        @pooling
        class no_sum:
            """x"""

            def finish(total):
                return total

    with pytest.raises(PluginError, match="'size' is none of these"):

        @pooling
        class wrong_name:
            """x"""

            def total(x):
                return x

            def finish(total, size):
                return total / size


def test_parameters_are_checked():
    with pytest.raises(ParameterError, match="num_groups"):
        examples.plain_group_norm.make(num_groups=0)
    with pytest.raises(ParameterError, match="kernel_size"):
        examples.plain_lp_pool.make(kernel_size=0)


def test_dear_functions_are_told_from_cheap_ones():
    """By what they call with the fields at hand: x * x of p = 2 is cheap, |x|^p is not."""
    (powers,) = examples.plain_lp_pool.declared.sums
    assert not is_dear(powers, {"p": 2.0}) and is_dear(powers, {"p": 3.0})
    assert all(is_dear(scalar, {"slope": 1.5}) for scalar in soft_pool.declared.sums)
    assert not is_dear(mean_pool.declared.sums[0], {})


def test_a_misspelt_option_is_named():
    with pytest.raises(PluginError, match="no option is called 'sauce'; did you mean 'source'"):

        @normalization(over="sample", sauce="me")
        class misspelt:
            """x"""

            def normalize(x):
                return x


@pytest.mark.parametrize("op", [channel_rms, whole_rms], ids=lambda op: op.name)
def test_a_batch_of_no_samples_has_no_statistics(op):
    assert normcore.testing.check_one(op, "empty_batch").status == "passed"

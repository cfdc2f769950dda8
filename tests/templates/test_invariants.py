"""What is taken out of the loop over elements: texts only, nothing is compiled."""

import math

import pytest

from normcore.templates import normalization
from normcore.templates.declaration import Scalar
from normcore.templates.invariants import Invariants, is_x, slope_of_line, takes_x
from normcore.templates.normalization_lines import LineWriter


def straight(x, mean, scale):
    root = math.sqrt(scale + 1.0)
    twice = 2.0 * mean
    return (x - twice) / root * (1.0 / root)


def negative(x, scale):
    return -(1.0 / scale) * x


def shared(x, scale):
    return x + 1.0 / scale


def branches(x, scale):
    if scale > 0.0:
        return x * math.log(scale)
    return x / (1.0 / scale)


def chosen(x, scale):
    return x * math.log(scale) if math.exp(scale) > 1.0 else x


def twice_set(x, scale):
    factor = 1.0 / scale
    factor = factor * x
    return factor


def identity(x):
    return x


def test_what_does_not_depend_on_x_becomes_an_argument():
    invariants = Invariants()
    split = invariants.split(Scalar.of("op", "straight", straight))
    assert split.arguments == ("x", "mean", "scale", "invariant_0", "invariant_1")
    lines = split.function.text.splitlines()
    assert lines[1:] == [
        "    pass",  # root, which is taken out wherever it was read
        "    twice = 2.0 * mean",  # not worth a line of scratch
        "    return (x - twice) / invariant_0 * (invariant_1)",
    ]
    assert [p.arguments for p in invariants.parts.values()] == [("scale",), ("scale",)]
    root, inverse = invariants.parts.values()
    space = {"math": math}
    exec(root.function.text + inverse.function.text, space)
    assert (space["invariant_0"](3.0), space["invariant_1"](3.0)) == (2.0, 0.5)


def test_each_is_there_once_whatever_its_sign():
    invariants = Invariants()
    texts = [invariants.split(Scalar.of("op", f.__name__, f)).function.text for f in (negative, shared)]
    assert list(invariants.parts) == ["invariant_0"]
    assert "return -(invariant_0) * x" in texts[0] and "return x + invariant_0" in texts[1]


@pytest.mark.parametrize("function", [branches, twice_set, identity])
def test_what_may_not_be_computed_stays(function):
    invariants, scalar = Invariants(), Scalar.of("op", function.__name__, function)
    assert invariants.split(scalar).arguments[:2] == scalar.arguments[:2]
    assert not any("log" in part.function.text for part in invariants.parts.values())
    if function is not twice_set:
        assert invariants.split(scalar) is scalar


def test_of_a_choice_only_the_question_is_taken_out():
    invariants = Invariants()
    invariants.split(Scalar.of("op", "chosen", chosen))
    assert ["exp" in p.function.text for p in invariants.parts.values()] == [True]


def test_straight_lines_are_found():
    slope = slope_of_line(Invariants().split(Scalar.of("op", "straight", straight)))
    assert slope is not None and not takes_x(slope)
    assert slope_of_line(Scalar.of("op", "branches", branches)) is None
    assert is_x(Scalar.of("op", "identity", identity)) and not is_x(Scalar.of("op", "shared", shared))


def test_the_slope_of_what_is_left_is_a_function_of_its_own():
    scalar = Scalar.of("op", "straight", straight)
    slope = slope_of_line(Invariants().split(scalar))
    assert slope.function.name != scalar.derivative("x").function.name


def test_what_a_part_is_made_of_is_computed_before_it():
    """The slope of x / (1 + e^-mean) is an invariant of an invariant."""

    @normalization(over="sample")
    class gate:
        """x / (1 + e^-mean)"""

        def mean(x):
            return x

        def normalize(x, mean):
            return x / (1.0 + math.exp(-mean))

    writer = LineWriter(gate.declared, by_line=False)
    lines = "\n".join(writer.part_lines(1))
    assert not writer.part_lines(0)
    assert [p.arguments for p in writer.invariants.parts.values()] == [("mean",), ("invariant_0",)]
    assert lines.index("h_0 = invariant_0(s_mean)") < lines.index("h_1 = invariant_1(h_0)")

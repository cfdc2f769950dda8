"""Derived derivatives: against the ones written in op files, against sympy, and what cannot be derived."""

import math
import re

import numpy as np
import pytest

import normcore
from normcore.derivation import Derived
from normcore.errors import PluginError
from normcore.kernels import inline
from normcore.kernels.approximations import exp_nonpositive, exp_unclamped, expm1_nonpositive, normal_slope
from normcore.kernels.function import read

WRITTEN = [
    (spec.component, choice)
    for spec in normcore.ops()
    if spec.component.is_elementwise and hasattr(spec.component, "definition")
    for choice in spec.component.scalars
]
GRID = [*np.linspace(-7.03, 7.01, 301).tolist(), -300.3, -60.1, -25.7, 25.7, 60.1, 300.3]


def derived(python, by="x", arguments=None):
    forward = read(python, scalar=True)
    names = arguments or tuple(python.__code__.co_varnames[: python.__code__.co_argcount])
    return Derived(forward, by, "derived", "derivative", names[:1], names)


def parameter_values(op, choice):
    """The parameters of each sample that uses this choice, and the defaults."""
    found = []
    for sample in op.samples:
        made = op.make(**sample.params)
        if not op.choice or getattr(made, op.choice) == choice:
            found.append(made.stages()[0][1])
    return found or [op.make().stages()[0][1]]


@pytest.mark.parametrize("op, choice", WRITTEN, ids=[f"{o.name}{c and '-'}{c}" for o, c in WRITTEN])
def test_it_equals_the_written_derivative(op, choice):
    scalars = op.scalars[choice]
    for k, by in enumerate(scalars.inputs):
        arguments = (*scalars.inputs, "y", *scalars.parameters)
        derivative = Derived(scalars.forward, by, "derived", "derivative", scalars.inputs, arguments)
        for parameters in parameter_values(op, choice):
            for x in GRID:
                inputs = (x, 0.7 - x)[: len(scalars.inputs)]
                try:
                    y = scalars.forward(*inputs, *parameters)
                    written = scalars.derivatives[k](*inputs, y, *parameters)
                except OverflowError:  # plain Python's, far out; kernels go on with infinity
                    continue
                got = derivative(*inputs, y, *parameters)
                assert got == pytest.approx(written, rel=1e-9, abs=1e-13), (inputs, parameters)


@pytest.mark.parametrize(
    "name", ["bnll", "softplus", "log_sigmoid", "sigmoid", "gelu", "squareplus", "softsign"]
)
def test_a_smooth_function_made_of_parts_with_kinks_is_right_at_them(name):
    op = next(o for o, _ in WRITTEN if o.name == name)
    scalars = next(iter(op.scalars.values()))
    parameters = parameter_values(op, next(iter(op.scalars)))[0]
    derivative = Derived(
        scalars.forward, "x", "derived", "derivative", ("x",), ("x", "y", *scalars.parameters)
    )
    y = scalars.forward(0.0, *parameters)
    written = scalars.derivatives[0](0.0, y, *parameters)
    assert derivative(0.0, y, *parameters) == pytest.approx(written, rel=1e-12)


# -- the rules, against another calculus --------------------------------------------------------------------------

FORMULAS = [
    "exp(x) * x",
    "exp2(x)",
    "expm1(-x / 3)",
    "log(x + 2)",
    "log1p(x * x)",
    "log2(x + 3)",
    "log10(x + 3)",
    "sqrt(x * x + 1)",
    "sin(x) * cos(2 * x)",
    "tan(x / 3)",
    "asin(x / 3)",
    "acos(x / 3)",
    "atan(x)",
    "sinh(x) / cosh(x)",
    "cosh(x)",
    "tanh(x) ** 2",
    "asinh(x)",
    "acosh(x + 4)",
    "atanh(x / 3)",
    "erf(x) + x",
    "x * erfc(-x)",
    "hypot(x, 2 * x + 1)",
    "atan2(x, x * x + 1)",
    "pow(x + 3, x)",
    "(x + 3) ** 2.5",
    "(x + 3) ** (x / 2)",
    "2 ** x",
    "x ** 3 - 4 * x ** 2 + x - x / (1 + x * x)",
    "degrees(x) - radians(x)",
    "x ** -2",
]


def write_module(folder, text):
    path = folder / "functions.py"
    path.write_text(text, encoding="utf-8")
    space = {}
    exec(compile(text, str(path), "exec"), space)
    return space


@pytest.fixture(scope="module")
def formulas(tmp_path_factory):
    functions = "\n".join(f"def f{k}(x):\n    return {text}\n" for k, text in enumerate(FORMULAS))
    return write_module(
        tmp_path_factory.mktemp("formulas"), "from math import *\nimport math\n" + math_calls(functions)
    )


def math_calls(text):
    return re.sub(r"\b(?!f\d)([a-z]\w*)\(", r"math.\1(", text)


@pytest.mark.parametrize("k", range(len(FORMULAS)), ids=FORMULAS)
def test_the_rules_are_those_of_sympy(k, formulas):
    sympy = pytest.importorskip("sympy")
    x = sympy.Symbol("x", real=True)
    names = {
        "expm1": lambda u: sympy.exp(u) - 1,
        "exp2": lambda u: 2**u,
        "log1p": lambda u: sympy.log(1 + u),
        "log2": lambda u: sympy.log(u, 2),
        "log10": lambda u: sympy.log(u, 10),
        "hypot": lambda a, b: sympy.sqrt(a * a + b * b),
        "pow": lambda a, b: a**b,
        "degrees": lambda u: u * 180 / sympy.pi,
        "radians": lambda u: u * sympy.pi / 180,
    }
    slope = sympy.sympify(FORMULAS[k], locals={**names, "x": x}).diff(x)
    function = formulas[f"f{k}"]
    derivative = derived(function)
    for at in (-1.37, -0.25, 0.5, 1.9):
        assert derivative(at) == pytest.approx(float(slope.subs(x, at).evalf(30)), rel=1e-12)


# -- what a scalar function may be written with -------------------------------------------------------------------

SCALE = 1.5


@inline
def gate(u):
    return 1.0 / (1.0 + math.exp(-u))


def with_statements(x, a):
    """Every form of statement."""
    y, z = x, a * SCALE
    if x > 1.0:
        y = x * x
        z += 1.0
    elif x < -1.0:
        return max(x, -2.0) * gate(x)
    return y * z + min(x, 0.5) if 0.0 < x <= 3.0 and a != 0.0 else abs(x - 0.25) * z


def test_statements_helpers_and_constants():
    by_x, by_a = derived(with_statements), derived(with_statements, "a")
    for x in (-2.5, -1.5, -0.3, 0.1, 0.7, 1.4, 3.5):
        for k, derivative in enumerate((by_x, by_a)):
            at = [x, 0.8]
            numeric = 0.0
            for sign in (1, -1):
                moved = list(at)
                moved[k] += sign * 1e-6
                numeric += sign * with_statements(*moved) / 2e-6
            assert derivative(*at) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def approximated(x):
    return (
        exp_nonpositive(-abs(x)) + expm1_nonpositive(-x * x) * normal_slope(abs(x)) + exp_unclamped(0.1 * x)
    )


def test_cheaper_functions_have_the_slopes_of_what_they_stand_for():
    derivative = derived(approximated)
    for x in (-2.5, -0.75, -0.3, 0.2, 0.9, 3.5):
        numeric = (approximated(x + 1e-6) - approximated(x - 1e-6)) / 2e-6
        assert derivative(x) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_what_the_output_knows_is_read_from_it():
    def by_y(python):
        return Derived(read(python, scalar=True), "x", "derived", "derivative", ("x",), ("x", "y", "a"))

    def saturating(x, a):
        return math.tanh(a * x)

    def bell(x, a):
        return math.exp(-a * x * x)

    assert by_y(saturating).text.splitlines()[-1] == "    return (1.0 - y) * (1.0 + y) * a"
    assert " y" not in by_y(bell).text.split(":", 1)[1]  # x is needed anyway


def test_saturated_exponentials_have_a_slope_of_zero():
    def swish(x):
        return x / (1.0 + math.exp(-x))

    derivative = derived(swish)
    assert [derivative(x) for x in (-800.0, -720.0, 800.0)] == [pytest.approx(0.0, abs=1e-290)] * 2 + [1.0]
    assert math.isnan(derivative(math.nan))


@pytest.mark.parametrize(
    "body, message",
    [
        ("for i in range(3):\n        x = x * x\n    return x", r"functions\.py:4: .*a loop \(for\)"),
        ("while x > 1.0:\n        x = x / 2.0\n    return x", r"a loop \(while\)"),
        ("y = x\n    return math.gamma(y)", r"functions\.py:5: .*no derivative of math\.gamma"),
        ("return mystery(x)", "no derivative of mystery"),
        ("return again(x)", "again calls itself"),
        ("return x * unknown", "'unknown' is neither a number nor set before"),
        ("if x > 0.0:\n        return x", "can end without a return"),
        ("return [x][0]", "cannot be derived"),
    ],
)
def test_what_cannot_be_derived_is_named_with_its_place(body, message, tmp_path):
    text = f"import math\ndef again(x): return again(x)\ndef f(x):\n    {body}\n"
    function = write_module(tmp_path, text)["f"]
    with pytest.raises(PluginError, match=message):
        derived(function)(1.0)
    with pytest.raises(PluginError, match=r"write derivative\(x\) yourself"):
        derived(function)(1.0)

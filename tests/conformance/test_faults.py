"""The conformance suite catches what it is there for: a table of planted faults, each caught by its check."""

import importlib.util
import pathlib
import types

import numba
import pytest

import normcore
import normcore.testing
from normcore.registry import default
from normcore.testing import ptx
from normcore.testing.running import Case, Runner, parallel_from
from normcore.testing.samples import Sample


def _load():
    path = pathlib.Path(__file__).with_name("faulty_ops.py")
    spec = importlib.util.spec_from_file_location("faulty_ops", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


faulty = _load()


@pytest.fixture
def registered():
    """Registers an op for one test; the default registry is made anew behind it."""

    def register(cls):
        default().add(types.SimpleNamespace(normcore_ops=normcore.hookimpl(lambda: [cls])))

    yield register
    default.cache_clear()


@pytest.mark.parametrize("cls", faulty.FAULTS, ids=lambda cls: cls.name)
def test_fault_is_caught(cls, registered):
    check, words = faulty.FAULTS[cls]
    if check == "cuda_compiled" and ptx.missing() is not None:
        pytest.skip(ptx.missing())
    if check == "yaml":
        registered(cls)
    outcome = normcore.testing.check_one(cls, check)
    assert outcome.status == "failed", outcome
    assert words in outcome.detail


def test_every_check_catches_a_fault():
    """The simulator's runs the registered ops only, in a process of its own: tests/plugins/test_faults.py."""
    caught = {check for check, _ in faulty.FAULTS.values()}
    assert set(normcore.testing.check_names()) - caught == {"cuda_simulated"}


def test_an_op_without_fault_passes():
    report = normcore.testing.check_op(faulty.Square)
    assert not report.failed, [str(o) for o in report.failed]
    passed = {o.check for o in report.outcomes if o.status == "passed"}
    nothing_to_check = {
        "errors",
        "fusion",
        "formats",
        "random_numbers",
        "yaml",
        "cuda_kernels",
        "cuda_compiled",
    }
    assert {check for check, _ in faulty.FAULTS.values()} - passed == nothing_to_check
    assert report.ok


def test_what_backward_holds_constant_is_declared():
    assert normcore.testing.check_one(faulty.StraightThrough, "gradients").status == "passed"


def test_what_is_mandatory_and_skipped_is_no_success():
    """An op whose samples are all empty has gradients that nobody has seen; one that declares none has no gap."""

    class OnlyEmpty(faulty.Square, name="only_empty"):
        """x * x"""

        samples = (Sample("nothing", shape=(0, 9)),)

    report = normcore.testing.check_op(OnlyEmpty, only=["gradients"])
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.mandatory, report.ok) == ("skipped", True, False)
    report = normcore.testing.check_op("hardmax", only=["gradients", "value", "bounds"])
    assert [o.status for o in report.outcomes] == ["skipped", "passed", "passed"] and report.ok


@pytest.mark.parametrize(
    "check", ["bounds", "value", "gradients", "overwrites", "repeatable", "save_and_load"]
)
def test_an_op_without_samples_cannot_be_said_to_be_right(check):
    assert not normcore.testing.check_op(faulty.NeedsSamples, only=[check]).ok


def test_the_smallest_failing_input_is_named():
    outcome = normcore.testing.check_one(faulty.WrongGradient, "gradients")
    assert outcome.shapes == ((1, 1),)
    assert "smallest failing input: shapes [(1, 1)], seed 0" in str(outcome)
    again = normcore.testing.check_one(
        faulty.WrongGradient, "gradients", shapes=outcome.shapes, seed=outcome.seed
    )
    assert again.status == "failed"


def test_an_unknown_check_names_the_nearest():
    with pytest.raises(normcore.PluginError, match="did you mean 'gradients'"):
        normcore.testing.check_one(faulty.Square, "gradient")


def test_expected_failures_must_fail():
    mark = normcore.testing.parametrize_checks(faulty.WrongValue, expected_failures={"value": "planted"})
    cases = {case.id: case for case in mark.args[1]}
    (xfail,) = cases["wrong_value-value"].marks
    assert xfail.kwargs["strict"] and xfail.kwargs["reason"] == "planted"
    assert not cases["wrong_value-nan"].marks


def test_elementwise_loops_do_not_depend_on_threads():
    """The conformance suite leaves this to one op: the engine writes the same loops for all of them."""

    @normcore.elementwise
    class shifted_cube:
        """(x + shift)^3"""

        shift: float = 0.5

        def forward(x, shift):
            return (x + shift) ** 3

        def derivative(x, y, shift):
            return 3.0 * (x + shift) ** 2

    case = Case.of(shifted_cube, Sample("several chunks", shape=(9, 5000)))
    with parallel_from(0):
        runner = Runner(case, "float32")
        runner.threshold = 0
    inputs = runner.cast(case.inputs())
    before = numba.get_num_threads()
    runs = []
    for threads in (1, 2):
        try:
            numba.set_num_threads(threads)
            runs.append(runner.run(inputs))
        finally:
            numba.set_num_threads(before)
    for (_, a), (_, b) in zip(runs[0].arrays(), runs[1].arrays(), strict=True):
        assert (a == b).all()


def test_without_the_cuda_compilers_libraries_the_check_is_skipped(monkeypatch):
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="needs the extra cuda")
    if ptx.missing() is not None:
        pytest.skip(ptx.missing())
    find = pathfinder.load_nvidia_dynamic_lib

    def all_but_one(name):
        if name == "nvrtc":
            raise pathfinder.DynamicLibNotFoundError(name)
        return find(name)

    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", all_but_one)
    ptx._missing_libraries.cache_clear()
    try:
        outcome = normcore.testing.check_one("relu", "cuda_compiled")
    finally:
        ptx._missing_libraries.cache_clear()
    assert outcome.status == "skipped" and outcome.detail.startswith("needs libnvrtc, found in no")

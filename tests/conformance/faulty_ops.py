"""Ops with one planted fault each, for test_faults.py: the table of what the conformance suite must catch."""

import math

import numba
import numpy as np

import normcore
from normcore.kernels import cpu, cu, cuda, epilogue, epilogue_gradient, inline, prange, real
from normcore.testing.samples import ErrorSample, Sample

CALLS = []
GENERATOR = np.random.default_rng(0)


@inline
def _square_row(x, y):
    for i in range(x.size):
        y[i] = x[i] * x[i]


@cpu
def _squares(x, y):
    for n in prange(x.shape[0]):
        _square_row(x[n], y[n])


@inline
def _slope_row(x, dy, dx):
    for i in range(x.size):
        dx[i] = 2.0 * x[i] * dy[i]


@cpu
def _slopes(x, dy, dx):
    for n in prange(x.shape[0]):
        _slope_row(x[n], dy[n], dx[n])


class Square(normcore.Op, name="square"):
    """x * x, without a fault."""

    samples = (Sample("a vector", shape=(4, 9)),)

    def plan(self, x):
        return normcore.Plan(y=x.shape)

    def forward_cpu(self, t):
        _squares[t](t.x, t.y)

    def backward_cpu(self, t):
        _slopes[t](t.x, t.dy, t.dx)

    def reference(self, x):
        return x**2


# -- one fault each ----------------------------------------------------------------------------------------


@cpu
def _beyond(x, y):
    """Numba's arrays know no bounds: the element behind the end belongs to somebody else."""
    for i in range(x.shape[0] * x.shape[1] + 1):
        n = i // x.shape[1]
        c = i - n * x.shape[1]
        y[n, c] = x[min(n, x.shape[0] - 1), c] * x[min(n, x.shape[0] - 1), c]


class WritesBeyond(Square, name="writes_beyond"):
    """Writes one element behind its output."""

    def forward_cpu(self, t):
        _beyond[t](t.x, t.y)


@cpu
def _three_x(x, dy, dx):
    for n in prange(x.shape[0]):
        for i in range(x.shape[1]):
            dx[n, i] = 3.0 * x[n, i] * dy[n, i]


class WrongGradient(Square, name="wrong_gradient"):
    """Its derivative is 3 x."""

    def backward_cpu(self, t):
        _three_x[t](t.x, t.dy, t.dx)


@cpu
def _adds(x, dy, dx):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            dx[n, i] += 2.0 * x[n, i] * dy[n, i]


class Accumulates(Square, name="accumulates"):
    """Adds to the input gradient instead of writing it."""

    def backward_cpu(self, t):
        _adds[t](t.x, t.dy, t.dx)


@cpu
def _in_place(x, y):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * x[n, i]
            x[n, i] = y[n, i]


class ChangesInput(Square, name="changes_input"):
    """Leaves its result in its input."""

    def forward_cpu(self, t):
        _in_place[t](t.x, t.y)


@cpu
def _first_rows(x, y):
    for n in range(x.shape[0] - 1):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * x[n, i]


class LeavesElements(Square, name="leaves_elements"):
    """Does not write the last sample's output."""

    def forward_cpu(self, t):
        _first_rows[t](t.x, t.y)


@cpu
def _in_double(x, scale, y):
    for n in prange(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * x[n, i] * scale


class ComputesInDouble(Square, name="computes_in_double"):
    """Multiplies by a Python float, which is a float64 in the kernel."""

    def forward_cpu(self, t):
        _in_double[t](t.x, 1.0, t.y)


class KeepsState(Square, name="keeps_state"):
    """Counts its calls outside the arrays that the engine gave it."""

    def forward_cpu(self, t):
        CALLS.append(1)
        _squares[t](t.x, t.y)
        t.y[...] += t.y.dtype.type(len(CALLS))


@cpu
def _chunked_sum(x, chunks, partial, y):
    step = (x.shape[0] + chunks - 1) // chunks
    for k in prange(chunks):
        partial[k] = real(0)
        for n in range(k * step, min(x.shape[0], k * step + step)):
            for i in range(x.shape[1]):
                partial[k] += math.exp(x[n, i])
    total = real(0)
    for k in range(chunks):
        total += partial[k]
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] / total


class SumsByThread(Square, name="sums_by_thread"):
    """Sums in as many parts as there are threads."""

    differentiable = False

    def plan(self, x):
        return normcore.Plan(y=x.shape, workspace={"partial": normcore.Array((64,))})

    def forward_cpu(self, t):
        _chunked_sum[t](t.x, numba.get_num_threads(), t.partial, t.y)

    def reference(self, x):
        return x / np.exp(x).sum()


@cpu
def _without_nan(x, y):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * x[n, i] if x[n, i] == x[n, i] else 0.0


class SwallowsNan(Square, name="swallows_nan"):
    """Gives 0 for NaN."""

    def forward_cpu(self, t):
        _without_nan[t](t.x, t.y)


class TrainsOtherwise(Square, name="trains_otherwise"):
    """Twice as large in inference."""

    def forward_cpu(self, t):
        _squares[t](t.x, t.y)
        if not t.training:
            t.y[...] *= 2


class DrawsItsScale(Square, name="draws_its_scale"):
    """A scale that is drawn from the seed, and is no parameter: a weights file does not have it."""

    def forward_cpu(self, t):
        _squares[t](t.x, t.y)
        t.y[...] *= t.y.dtype.type(1 + int(t.key) % 97)

    def reference(self, x, key):
        return x**2 * (1 + int(key) % 97)


class HidesItsMean(Square, name="hides_its_mean"):
    """Keeps the mean of the last training batch for inference, in its workspace instead of its state."""

    def plan(self, x):
        return normcore.Plan(y=x.shape, workspace={"mean": normcore.Array((1,))})

    def forward_cpu(self, t):
        if t.training:
            t.mean[0] = t.x.mean()
        _squares[t](t.x, t.y)
        if not t.training:
            t.y[...] += t.mean[0]


@cpu
def _cancelling(x, y):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * x[n, i] - 2000.0 * x[n, i] + 1000000.0


class CancelsDigits(Square, name="cancels_digits"):
    """(x - 1000)^2, multiplied out: in float32 nearly all digits cancel."""

    differentiable = False
    samples = (Sample("near 1000", shape=(4, 9), low=999.0, high=1001.0),)

    def forward_cpu(self, t):
        _cancelling[t](t.x, t.y)

    def reference(self, x):
        return (x - 1000) ** 2


class ForgetsItsState(Square, name="forgets_its_state"):
    """In inference the running shift must be added, and is not."""

    def plan(self, x):
        return normcore.Plan(y=x.shape, state={"shift": normcore.Array(x.shape[1:])})

    def reference(self, x, shift, training):
        return x**2 if training else x**2 + shift


@cpu
def _by_middle(x, y):
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i in range(x.shape[2]):
                y[n, c, i] = x[n, c, i] * real(c + 1)


class IgnoresItsFormat(Square, name="ignores_its_format"):
    """x times the channel's number, the channels taken from where they are in channels first only."""

    formats = ("channels_first", "channels_last")
    differentiable = False
    samples = (Sample("maps", shape=(2, 3, 5)),)

    def forward_cpu(self, t):
        _by_middle[t](t.x, t.y)

    def reference(self, x):
        return x * np.arange(1.0, x.shape[1] + 1).reshape(1, -1, 1)


class DividesByBatch(Square, name="divides_by_batch"):
    """x^2 over the size of the batch, and does not say that it needs the batch."""

    differentiable = False

    def forward_cpu(self, t):
        _squares[t](t.x, t.y)
        t.y[...] /= t.y.dtype.type(max(1, t.batch))

    def reference(self, x):
        return x**2 / max(1, len(x))


class PreparesOnce(Square, name="prepares_once"):
    """Fills a table for its rows at the first call, and counts on it when the batch has grown."""

    differentiable = False

    def plan(self, x):
        table = normcore.Array((x.shape[0],))
        return normcore.Plan(y=x.shape, workspace={"table": table, "ready": normcore.Array((1,))})

    def forward_cpu(self, t):
        if t.ready[0] != 1:
            t.table[:], t.ready[0] = 1, 1
        _squares[t](t.x, t.y)
        t.y[...] *= t.table[:, None]


@cpu
def _saturating(x, y):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            v = x[n, i] * x[n, i]
            y[n, i] = 1e30 if v > 1e30 else v


class Saturates(Square, name="saturates"):
    """1e30 where the square is larger."""

    def forward_cpu(self, t):
        _saturating[t](t.x, t.y)


class TakesTheBase(Square, name="takes_the_base"):
    """Reads the memory that its input is a view of as if the input began there."""

    def forward_cpu(self, t):
        x = t.x
        while isinstance(x.base, np.ndarray):
            x = x.base
        memory = x.reshape(-1).view(np.uint8)[: t.x.nbytes]
        _squares[t](memory.view(t.x.dtype).reshape(t.x.shape), t.y)


@cpu
def _multiply(x, by, y):
    for n in prange(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * by[n, i]


class UsesUpWhatItSaved(Square, name="uses_up_what_it_saved"):
    """Multiplies the gradient into the slopes that forward saved."""

    backward_needs = ()

    def plan(self, x):
        return normcore.Plan(y=x.shape, saved={"slopes": normcore.Array(x.shape)})

    def forward_cpu(self, t):
        _squares[t](t.x, t.y)
        t.slopes[...] = 2 * t.x

    def backward_cpu(self, t):
        _multiply[t](t.slopes, t.dy, t.slopes)
        t.dx[...] = t.slopes


class DrawsTheSame(Square, name="draws_the_same"):
    """Draws by its key alone: every step has the same numbers."""

    stochastic = True
    differentiable = False

    def forward_cpu(self, t):
        drawn = np.random.default_rng(int(t.key)).random(t.x.shape) if t.training else 1
        t.y[...] = t.x**2 * drawn


class DrawsFromNowhere(DrawsTheSame, name="draws_from_nowhere"):
    """Draws from a generator of its own: no step can be repeated."""

    def forward_cpu(self, t):
        drawn = GENERATOR.random(t.x.shape) if t.training else 1
        t.y[...] = t.x**2 * drawn


class HalfOnCuda(Square, name="half_on_cuda"):
    """Has a CUDA kernel forward, and none backward."""

    def forward_cuda(self, t):
        _squares_cuda[t, t.x.size](t.x.reshape(-1), t.y.reshape(-1))


@cuda
def _squares_cuda(x, y):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        y[i] = x[i] * x[i]


@cuda
def _shares_cuda(x, y):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        y[i] = x[i] * x[i] * (i / i)


@cuda
def _slopes_cuda(x, dy, dx):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        dx[i] = 2.0 * x[i] * dy[i]


class DividesWholeNumbers(Square, name="divides_whole_numbers"):
    """A quotient of two integers is a float64, also in a CUDA kernel."""

    def forward_cuda(self, t):
        _shares_cuda[t, t.x.size](t.x.reshape(-1), t.y.reshape(-1))

    def backward_cuda(self, t):
        _slopes_cuda[t, t.x.size](t.x.reshape(-1), t.dy.reshape(-1), t.dx.reshape(-1))


@cuda
def _fitted_cuda(x, y):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        y[i] = np.polyfit(x, x, 1)[0] * x[i] * x[i]


class DoesNotCompile(DividesWholeNumbers, name="does_not_compile"):
    """Calls a function of NumPy that a CUDA kernel does not have."""

    def forward_cuda(self, t):
        _fitted_cuda[t, t.x.size](t.x.reshape(-1), t.y.reshape(-1))


class GrowsItsParameter(Square, name="grows_its_parameter"):
    """x^2. size: doubled whenever an op is made, so that no file can hold it."""

    size: int = 3

    def check(self):
        object.__setattr__(self, "size", 2 * self.size)


class Undocumented(Square, name="undocumented"):
    strength: float = 1.0


class ForgetsParameter(Square, name="forgets_parameter"):
    """x * x."""

    strength: float = 1.0


class AcceptsAnything(Square, name="accepts_anything"):
    """Takes the shape it declares as wrong."""

    error_samples = (ErrorSample("rank 3", shape=(2, 3, 4), message_contains="expected"),)


class WrongMessage(Square, name="wrong_message"):
    """Refuses without saying why."""

    error_samples = (ErrorSample("rank 3", shape=(2, 3, 4), message_contains="expected a matrix"),)

    def plan(self, x):
        if len(x.shape) != 2:
            raise normcore.ShapeError("no")
        return super().plan(x)


class WrongValue(Square, name="wrong_value"):
    """The reference says x^3."""

    def reference(self, x):
        return x**3


class NeedsSamples(Square, name="needs_samples"):
    """Has a parameter without a default (strength) and no samples."""

    strength: float

    samples = ()


class KnowsItsBatch(Square, name="knows_its_batch"):
    """Refuses an empty batch, though it has no statistics over the batch."""

    def plan(self, x):
        if not x.shape[0]:
            raise normcore.ShapeError("no samples")
        return super().plan(x)


@cpu
def _round(x, y):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = math.floor(x[n, i] + 0.5)


@cpu
def _pass_on(dy, dx):
    for n in range(dy.shape[0]):
        for i in range(dy.shape[1]):
            dx[n, i] = dy[n, i]


class RoundsSilently(Square, name="rounds_silently"):
    """Rounds, and passes the gradient straight through without saying so."""

    def forward_cpu(self, t):
        _round[t](t.x, t.y)

    def backward_cpu(self, t):
        _pass_on[t](t.dy, t.dx)

    def reference(self, x):
        return np.floor(x + 0.5)


class StraightThrough(RoundsSilently, name="straight_through"):
    """The same, declared: backward is the slope of x + (rounded - x), with the bracket held constant."""

    def gradient_reference(self, x, at, training):
        return x + (np.floor(at[0] + 0.5) - at[0])


# fault -> (the check that must catch it, words of its message)
@inline
def _fused_row(x, y, e):
    for i in range(x.size):
        y[i] = epilogue(x[i] * x[i], e)


@cpu
def _fused_squares(x, y, e):
    for n in prange(x.shape[0]):
        _fused_row(x[n], y[n], e)


@inline
def _fused_slope_row(x, z, y, dy, dx, e):
    for i in range(x.size):
        dx[i] = 2.0 * x[i] * epilogue_gradient(z[i], y[i], dy[i], e)


@cpu
def _fused_slopes(x, z, y, dy, dx, e):
    for n in prange(x.shape[0]):
        _fused_slope_row(x[n], z[n], y[n], dy[n], dx[n], e)


class ForgetsWhatItFused(Square, name="forgets_what_it_fused"):
    """Promises to keep the value before a fused chain, and hands backward the one behind it."""

    epilogue = "output"
    backward_needs = ("x",)

    def forward_cpu(self, t):
        _fused_squares[t](t.x, t.y, t.e)

    def backward_cpu(self, t):
        _fused_slopes[t](t.x, t.y, t.y, t.dy, t.dx, t.e)


FAULTS = {
    ForgetsWhatItFused: ("fusion", "gradient of the input with silu fused"),
    WritesBeyond: ("bounds", "wrote 0 bytes behind the end"),
    WrongGradient: ("gradients", "central differences give"),
    Accumulates: ("overwrites", "gradient of the input"),
    ChangesInput: ("inputs_unmodified", "input 0 after forward"),
    LeavesElements: ("overwrites", "over memory full of NaN"),
    ComputesInDouble: ("single_precision", "computes in float64"),
    KeepsState: ("repeatable", "second run"),
    SumsByThread: ("threads", "2 threads against 1"),
    SwallowsNan: ("nan", "nan in input 0"),
    TrainsOtherwise: ("modes", "in inference"),
    DrawsItsScale: ("save_and_load", "in inference, saved and loaded"),
    HidesItsMean: ("save_and_load", "in inference, saved and loaded"),
    CancelsDigits: ("float32", "of the largest element, the bound is 1e-05"),
    ForgetsItsState: ("inference", "of the largest element, the bound is 1e-05"),
    IgnoresItsFormat: ("formats", "output, channels last"),
    DividesByBatch: ("batch_of_one", "output 0 of a batch of one"),
    PreparesOnce: ("batch_sizes", "in a layer declared for 1: output"),
    Saturates: ("infinities", "output 0 with inf in input 0"),
    TakesTheBase: ("not_contiguous", "every second element: output"),
    UsesUpWhatItSaved: ("backward_again", "gradient of input 0, the second time"),
    DrawsTheSame: ("random_numbers", "the next call draws the same numbers"),
    DrawsFromNowhere: ("random_numbers", "the same call number"),
    HalfOnCuda: ("cuda_kernels", "forward_cuda without backward_cuda"),
    DividesWholeNumbers: ("cuda_compiled", "float64 instructions"),
    DoesNotCompile: ("cuda_compiled", "polyfit"),
    GrowsItsParameter: ("yaml", "read back"),
    Undocumented: ("docs", "no docstring"),
    ForgetsParameter: ("docs", "strength"),
    AcceptsAnything: ("errors", "was accepted"),
    WrongMessage: ("errors", "does not contain"),
    WrongValue: ("value", "expected"),
    RoundsSilently: ("gradients", "central differences give"),
    NeedsSamples: ("samples", "strength"),
    KnowsItsBatch: ("empty_batch", "no samples"),
}

"""What rnn, lstm and gru share: layers, directions, the order of steps, products with the weights, normalization.

The input's share of all pre-activations is one matrix product for all time steps; a step is then a product with h
(N, hidden_size) and one kernel for the gates. Backward runs the steps the other way round, keeps the gradients of
all pre-activations, and makes the weights' and the input's gradients from them by one product each.
"""

from types import SimpleNamespace
from typing import Literal

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import convolution, convolution_cuda
from normcore.kernels.accumulate import accumulate
from normcore_recurrent import in_torch, joining, reference
from normcore_recurrent import lengths as lengths_of
from normcore_recurrent.step_norm import StepNorm


class Recurrent(Op):
    """Base of the recurrent ops; a subclass brings its cell: gates, the kernels of a step and their arrays."""

    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    normalization: Literal["none", "layer_norm", "batch_norm"] = "none"
    return_sequences: bool = False
    truncate: int | None = None
    eps: float = 1e-5
    momentum: float = 0.1
    longer: Literal["error", "last"] = "error"
    padding_value: float | None = None

    inputs = ("*xs",)
    input_dtypes = (None, "int64")
    backward_needs = ("x",)

    gates = 1  # of the cell
    apart = 0  # gates that layer_norm normalizes apart from the rest; 0: all together
    kept = ()  # saved arrays (N, T, H) of the cell beside `before`
    has_cell = False

    def check(self):
        for name in ("hidden_size", "num_layers"):
            _whole(name, getattr(self, name))
        if self.truncate is not None:
            _whole("truncate", self.truncate)
        if self.normalization not in ("none", "layer_norm", "batch_norm"):
            raise ParameterError("normalization", "none, layer_norm or batch_norm", self.normalization)
        if self.longer not in ("error", "last"):
            raise ParameterError("longer", "error or last", self.longer)
        if not self.eps > 0:
            raise ParameterError("eps", "a number above 0", self.eps)
        if not 0 < self.momentum <= 1:
            raise ParameterError("momentum", "a number above 0, at most 1", self.momentum)
        if self.padding_value is not None and not np.isfinite(self.padding_value):
            raise ParameterError("padding_value", "a finite number", self.padding_value)

    # -- what there is ---------------------------------------------------------------------------------------

    @property
    def width(self):
        return self.gates * self.hidden_size

    @property
    def joint(self):
        """layer_norm of the sum of both shares (Ba 2016, section 3.1), for the cell without gates."""
        return self.normalization == "layer_norm" and self.gates == 1

    @property
    def sides(self):
        """What is normalized: (side, width, where layer_norm's second segment begins, or the width)."""
        if self.normalization == "none":
            return ()
        split = (self.apart or self.gates) * self.hidden_size
        found = [("hh", self.width, split)]
        if not self.joint:
            found.insert(0, ("ih", self.width, split))
        if self.has_cell:
            found.append(("c", self.hidden_size, self.hidden_size))
        return tuple(found)

    def paths(self, channels):
        """For each layer and direction: layer, direction, the suffix of its arrays, its input's size."""
        ways = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            size = ways * self.hidden_size if layer else channels
            for way in range(ways):
                yield layer, way, f"l{layer}" + "_reverse" * way, size

    def plan(self, *xs: Tensor) -> Plan:
        x = xs[0]
        if len(x.shape) != 3 or 0 in x.shape[1:]:
            hint = ""
            if len(x.shape) == 4 and x.shape[1] == 1:
                hint = (
                    f", images of one channel: `reshape: [{x.shape[2]}, {x.shape[3]}]` before it reads them row by row; "
                    "arrays (N, T, C) of a file are sequences with `data.layout: sequences`"
                )
            raise ShapeError(
                f"{self.name}: expected (N, T, C) with at least one step and feature, got {x.shape}{hint}"
            )
        if len(xs) > 2:
            raise ShapeError(
                f"{self.name}: expected x (N, T, C) and, if you like, lengths (N,); got {len(xs)} inputs"
            )
        if len(xs) == 2 and xs[1].shape != x.shape[:1]:
            raise ShapeError(f"{self.name}: expected lengths of shape {x.shape[:1]}, got {xs[1].shape}")
        if len(xs) == 2 and self.padding_value is not None:
            raise ShapeError(f"{self.name}: expected lengths or padding_value, got both; leave one out")
        batch, steps, channels = x.shape
        size, width = self.hidden_size, self.width
        columns = size * (2 if self.bidirectional else 1)
        parameters, state = {}, {}
        saved = {"ends": Array((batch,), "int64")} if len(xs) == 1 else {}
        work = {
            "gx": Array((batch, steps, width)),
            "gh": Array((batch, width)),
            "dgx": Array((batch, steps, width)),
            "step": Array((batch, width)),
            "other": Array((batch, steps, max(columns, channels))),
        }
        for name in ("h", "carry", "back", *(("c", "dc", "dcell") if self.has_cell else ())):
            work[name] = Array((batch, size))
        if self.gates == 3:
            work["dgh"] = Array((batch, steps, width))
        for layer, _, suffix, inputs in self.paths(channels):
            fan = (size, size)  # PyTorch draws all of a cell's arrays from +-1 / sqrt(hidden_size)
            for name, shape in (("weight_ih", (width, inputs)), ("weight_hh", (width, size))):
                parameters[f"{name}_{suffix}"] = Array(shape, init="torch_default_weight", fan=fan)
            for name in ("bias_ih", "bias_hh"):
                parameters[f"{name}_{suffix}"] = Array((width,), init="torch_default_bias", fan=fan)
            saved[f"gates_{suffix}"] = Array((batch, steps, width))
            for name in ("before", *self.kept):
                saved[f"{name}_{suffix}"] = Array((batch, steps, size))
            StepNorm.declare(self, suffix, batch, steps, parameters, state, saved)
            if layer < self.num_layers - 1:
                saved[f"sequence_{layer}"] = Array((batch, steps, columns))
                work[f"dsequence_{layer}"] = Array((batch, steps, columns))
        if self.normalization != "none":
            StepNorm.scratch(self, batch, steps, work)
        if self.normalization == "batch_norm":
            state["trained_steps"] = Array((1,), "int64")
        for product in self._products(batch, steps, channels, x.dtype):
            for name, array in convolution.workspace(product).items():
                if name not in work or work[name].shape < array.shape:
                    work[name] = array
        y = (batch, steps, columns) if self.return_sequences else (batch, columns)
        flops = sum(2 * batch * steps * width * (inputs + size) for *_, inputs in self.paths(channels))
        return Plan(y, parameters, state, saved, work, flops)

    def _products(self, batch, steps, channels, dtype):
        found = {self._product(batch, self.hidden_size, dtype)}
        for inputs in {inputs for *_, inputs in self.paths(channels)} | {self.hidden_size}:
            found.add(self._product(batch * steps, inputs, dtype))
        return sorted(found, key=repr)

    def _product(self, rows, inputs, dtype, bias=True):
        """rows (rows, inputs) times a weight (width, inputs), as the convolution that dense is."""
        size = (1, rows, 1)
        return convolution.Convolution(
            1 if rows else 0, size, inputs, self.width, size, bias=bias, dtype=dtype
        )

    # -- running ---------------------------------------------------------------------------------------------

    def forward_cpu(self, t):
        self._forward(t)

    def backward_cpu(self, t):
        self._backward(t)

    def forward_cuda(self, t):
        self._forward(t)

    def backward_cuda(self, t):
        self._backward(t)

    def _forward(self, t):
        x = t.xs[0]
        lengths_of.find(self, t)
        if not x.size:
            return
        source, size = x, self.hidden_size
        for layer, way, suffix, _ in self.paths(x.shape[2]):
            last = layer == self.num_layers - 1
            target = (
                getattr(t, f"sequence_{layer}", None)
                if not last
                else (t.y if self.return_sequences else None)
            )
            self._forward_direction(t, suffix, way, source, _or_empty(t, target))
            if last and not self.return_sequences:
                self._launch(t, "columns", t.h.size, t.h, 0, t.y, way * size, size)
            if way == int(self.bidirectional) and not last:
                source = target

    def _forward_direction(self, t, suffix, way, source, seq):
        batch, steps = source.shape[:2]
        norm = None if self.normalization == "none" else StepNorm(self, t, suffix)
        bias, more = getattr(t, f"bias_ih_{suffix}"), getattr(t, f"bias_hh_{suffix}")
        weight = getattr(t, f"weight_hh_{suffix}")
        on_cpu = t.device.name == "cpu"
        added = on_cpu and self.normalization == "none"  # the products add the biases
        product = self._product(batch * steps, source.shape[2], t.dtype, bias=added)
        inner = _names(t, x=source, y=t.gx, weight=getattr(t, f"weight_ih_{suffix}"), bias=bias)
        (convolution if on_cpu else convolution_cuda).forward(inner, product)
        gx, gh, none = t.gx, t.gh, bias[:0]
        of_step = more  # what the normalization of h's share adds
        if self.joint:
            gx, gh, more = t.gx[:, :0], t.ghn, none
            if on_cpu:
                of_step = np.add(bias, of_step, out=t.both)
        elif self.normalization != "none":
            norm.forward("ih", t.gx, 0, t.gxn, bias)
            gx, gh, bias, more = t.gxn, t.ghn, none, none
        shares = (gx, gh) if on_cpu else (gx, gh, bias, more)
        multiply = self._multiplier(t, weight, batch, bias=of_step if added else None)
        self._fill(t, t.h)
        if self.has_cell:
            self._fill(t, t.c)
        step = self.stepping(t, norm, suffix, shares, seq, way * self.hidden_size)
        for at in range(steps)[:: -1 if way else 1]:
            multiply(t.h, t.gh)
            if self.joint:
                self._launch(t, "join", t.gh.size, t.gx, t.gh, at, t.gjoined)
                norm.forward("hh", t.gjoined[:, None], at, t.ghn[:, None], of_step)
            elif self.normalization != "none":
                norm.forward("hh", t.gh[:, None], at, t.ghn[:, None], of_step)
            step(at)

    def _backward(self, t):
        x, dx = t.xs[0], t.dxs[0]
        if not x.size:
            for name, array in vars(t).items():
                if name.startswith(("dweight_", "dbias_", "dgamma_", "dbeta_")):
                    array[...] = 0
            return
        for layer, way, suffix, _ in reversed(list(self.paths(x.shape[2]))):
            last = layer == self.num_layers - 1
            given = (t.dy if self.return_sequences else None) if last else getattr(t, f"dsequence_{layer}")
            self._fill(t, t.back)
            if last and not self.return_sequences:
                self._launch(
                    t, "columns", t.carry.size, t.dy, way * self.hidden_size, t.carry, 0, self.hidden_size
                )
            else:
                self._fill(t, t.carry)
            if self.has_cell:
                self._fill(t, t.dc)
            source = x if layer == 0 else getattr(t, f"sequence_{layer - 1}")
            target = dx if layer == 0 else getattr(t, f"dsequence_{layer - 1}")
            second = way == 0 and self.bidirectional  # the reverse direction has written its share already
            part = t.other.reshape(-1)[: source.size].reshape(source.shape) if second else target
            self._backward_direction(
                t, suffix, way, source, None if target is None else part, _or_empty(t, given)
            )
            if second and target is not None:
                accumulate(t, (target.reshape(-1), part.reshape(-1)), target.reshape(-1))

    def _backward_direction(self, t, suffix, way, source, dsource, dseq):
        batch, steps, size = *source.shape[:2], self.hidden_size
        norm = None if self.normalization == "none" else StepNorm(self, t, suffix)
        weight = getattr(t, f"weight_hh_{suffix}")
        multiply = self._multiplier(t, weight, batch, gradient=True)
        to_h = t.dgh if self.gates == 3 else t.dgx  # gradient of the recurrent share, normalized or not
        step_back = self.stepping_back(t, norm, suffix, dseq, way * size)
        for at in range(steps)[:: 1 if way else -1]:
            done = steps - 1 - at if way else at
            cut = self.truncate is not None and done % self.truncate == 0
            step_back(at, cut)
            if norm is not None:
                norm.backward("hh", to_h, at, t.draw_hh, at, 1)
                self._launch(t, "step", t.step.size, t.draw_hh, at, t.step, cut)
            multiply(t.step, t.back)
        to_x = t.dgx
        if self.normalization != "none":
            norm.parameters("hh", to_h, f"bias_hh_{suffix}")
            if self.joint:
                to_x = t.draw_hh
                getattr(t, f"dbias_ih_{suffix}")[...] = getattr(t, f"dbias_hh_{suffix}")
            else:
                norm.parameters("ih", t.dgx, f"bias_ih_{suffix}")
                norm.backward("ih", t.dgx, 0, t.draw_ih, 0, steps)
                to_x = t.draw_ih
            if self.has_cell:
                norm.parameters("c", t.dcells, f"beta_c_{suffix}")
            to_h = t.draw_hh
        before = getattr(t, f"before_{suffix}")
        self._product_gradients(t, f"hh_{suffix}", before, to_h, None)
        self._product_gradients(t, f"ih_{suffix}", source, to_x, dsource)

    def _product_gradients(self, t, name, source, gradient, dsource):
        plain = self.normalization == "none"
        product = self._product(source.shape[0] * source.shape[1], source.shape[2], t.dtype, bias=plain)
        inner = _names(
            t, x=source, y=gradient, dy=gradient, dx=dsource, weight=getattr(t, f"weight_{name}"),
            dweight=getattr(t, f"dweight_{name}"), dbias=getattr(t, f"dbias_{name}"),
        )  # fmt: skip
        (convolution if t.device.name == "cpu" else convolution_cuda).backward(inner, product)

    def _multiplier(self, t, weight, batch, gradient=False, bias=None):
        """(source, target): target = source weight^T + bias, or source weight for the gradient. bias: on the CPU."""
        if t.device.name == "cpu":
            product = self._product(batch, self.hidden_size, t.dtype, bias=bias is not None)
            return convolution.repeated(_names(t, weight=weight, bias=bias), product, gradient)
        factor = weight if gradient else weight.T
        return lambda source, target: t.device.matmul(source, factor, target)

    def refused(self, x):
        """Sequences of padding only, before any kernel runs."""
        return lengths_of.refused(self, x)

    def _fill(self, t, array):
        self._launch(t, "fill", array.size, array.reshape(-1), 0.0)

    def reference(self, x, lengths=None, *, training=True, **arrays):
        if self.padding_value is not None:
            lengths = reference.ends(x, self.padding_value)
        return reference.run(self, np.asarray(x, np.float64), lengths, arrays, training)

    def gradient_reference(self, x, lengths=None, *, at, training=True, **arrays):
        """The slope at fixed lengths: a nudge makes no padding a step."""
        if self.padding_value is not None:
            lengths = reference.ends(at[0] if isinstance(at, tuple) else at, self.padding_value)
        return reference.run(self, np.asarray(x, np.float64), lengths, arrays, training)

    def in_torch(self, torch, x, lengths=None, *, training, **arrays):
        """PyTorch's module of the same name, with these parameters; with layer_norm step by step, as users write it."""
        if self.truncate is not None:
            raise NotImplementedError("no truncation")
        if self.padding_value is not None:
            raise NotImplementedError("no padding value; sequences are packed by lengths")
        if self.normalization == "layer_norm" and lengths is None:
            return in_torch.layer_normalized(self, torch, x, arrays)
        if self.normalization != "none":
            raise NotImplementedError(f"no {self.normalization} in {self.name}")
        return in_torch.module(self, torch, x, lengths, arrays)

    def torch_options(self):
        return {}

    def _launch(self, t, name, extent, *arguments):
        """One of the moves of joining."""
        if t.device.name == "cpu":
            getattr(joining, f"{name}_cpu")(*arguments)
        else:
            getattr(joining, f"{name}_cuda")[t, extent](*arguments)


def _names(t, **arrays):
    """The Tensors that convolution reads for one product, on the scratch arrays of the whole layer."""
    scratch = ("variant", "device", "e", "scratch", "table", "panels", "partial", "bias_partial", "gradient")
    return SimpleNamespace(**{name: getattr(t, name) for name in scratch}, **arrays)


def _or_empty(t, array):
    return t.gx.reshape(-1)[:0].reshape(0, 0, 0) if array is None else array


def _whole(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParameterError(name, "a whole number, at least 1", value)

"""layer_norm and batch_norm of a recurrent layer's shares and cell: their arrays, and which kernel runs on them."""

import numpy as np

from normcore import Array
from normcore_recurrent import normalize


class StepNorm:
    """The normalizations of one layer and direction. Sides: ih (the input's share), hh (that of h), c (the cell)."""

    def __init__(self, op, t, suffix):
        self.op, self.t, self.suffix = op, t, suffix
        self.splits = {side: split for side, _, split in op.sides}
        self.batchwise = op.normalization == "batch_norm"

    @staticmethod
    def declare(op, suffix, batch, steps, parameters, state, saved):
        """Parameters, running statistics and what backward needs, into the mappings of a plan."""
        batchwise = op.normalization == "batch_norm"
        # Cooijmans 2016, section 4: 0.1, because gammas of 1 make tanh saturate and gradients vanish.
        init = {"constant": {"value": 0.1}} if batchwise else "ones"
        for side, width, split in op.sides:
            name = f"{side}_{suffix}"
            parameters[f"gamma_{name}"] = Array((width,), init=init)
            if side == "c":
                parameters[f"beta_{name}"] = Array((width,))
            saved[f"hat_{name}"] = Array((batch, steps, width))
            saved[f"scale_{name}"] = Array(
                (steps, width) if batchwise else (batch, steps, 1 + (split < width))
            )
            if batchwise:
                saved[f"mean_{name}"] = Array((steps, width))
                state[f"running_mean_{name}"] = Array((steps, width))
                state[f"running_var_{name}"] = Array((steps, width), init="ones")

    @staticmethod
    def scratch(op, batch, steps, work):
        width, size = op.width, op.hidden_size
        work["ghn"] = Array((batch, width))
        work["draw_hh"] = Array((batch, steps, width))
        if op.joint:
            work["gjoined"] = Array((batch, width))
            work["both"] = Array((width,))  # the sum of both biases
        else:
            work["gxn"] = work["draw_ih"] = Array((batch, steps, width))
        if op.has_cell:
            work["cn"] = Array((batch, size))
            work["dcells"] = Array((batch, steps, size))
        if op.normalization == "batch_norm":
            work["sums"] = Array((2 * steps * width,))

    def _own(self, kind, side):
        return getattr(self.t, f"{kind}_{side}_{self.suffix}")

    def forward(self, side, raw, at, out, bias):
        """out (N, S, W) from raw (N, S, W), the time steps from `at` on."""
        t, op = self.t, self.op
        hat, scale, gamma = self._own("hat", side), self._own("scale", side), self._own("gamma", side)
        if self.batchwise:
            running = (self._own("running_mean", side), self._own("running_var", side))
            arguments = (raw, hat, at, self._own("mean", side), scale, gamma, bias, out, *running)
            arguments = (*arguments, t.lengths, t.last_trained)
            rates = (t.training, np.float64(op.momentum), np.float64(op.eps))
            self._launch("batch", raw.shape[1] * raw.shape[2], *arguments, *rates)
        else:
            arguments = (raw, hat, at, scale, gamma, bias, out, np.float64(op.eps), self.splits[side])
            self._launch("layer", self._warps(raw.shape[0] * raw.shape[1] * scale.shape[2]), *arguments)

    def backward(self, side, dout, from_step, draw, to_step, steps, at=None):
        """draw from dout, `steps` time steps from `at` (dout's own first, if not given) on."""
        t, at = self.t, from_step if at is None else at
        hat, scale, gamma = self._own("hat", side), self._own("scale", side), self._own("gamma", side)
        arguments = (dout, from_step, hat, at, scale, gamma, draw, to_step, steps)
        if self.batchwise:
            sums = t.sums[: 2 * scale.size].reshape(2, *scale.shape)
            self._launch("batch_gradient", steps * scale.shape[1], *arguments, sums, t.lengths, t.training)
        else:
            jobs = dout.shape[0] * steps * scale.shape[2]
            self._launch("layer_gradient", self._warps(jobs), *arguments, self.splits[side])

    def parameters(self, side, dout, bias):
        """dgamma, and the gradient of what is added to gamma's product, from all steps."""
        hat = self._own("hat", side)
        rows = (dout.reshape(-1, dout.shape[2]), hat.reshape(-1, hat.shape[2]))
        self._launch(
            "parameters", hat.shape[2], *rows, self._own("dgamma", side), getattr(self.t, f"d{bias}")
        )

    def _warps(self, jobs):
        return min(65535, -(-jobs * 32 // normalize.THREADS)), normalize.THREADS

    def _launch(self, name, extent, *arguments):
        if self.t.device.name == "cpu":
            getattr(normalize, f"{name}_cpu")[self.t](*arguments)
        else:
            getattr(normalize, f"{name}_cuda")[self.t, extent](*arguments)

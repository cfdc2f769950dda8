"""A network: a graph from a configuration, bound to a device, with its parameters."""

import math
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore import weights_file
from normcore.devices import device as devices
from normcore.errors import MemoryBudgetError, ParameterError, ShapeError, UsageError
from normcore.graph.build import build
from normcore.graph.nodes import Graph
from normcore.graph.program import Program
from normcore.parameters import ParameterStore
from normcore.sequences import Sequences
from normcore.training.loss_binding import LossBinding

DTYPES = ("float32", "float64")
MEMORY_SHARE = 0.9  # of what is free: the rest is for the data and for everybody else


@dataclass(frozen=True)
class SummaryRow:
    """One layer for `normcore summary`. Shapes have N for the batch; bytes are for the planned batch size."""

    name: str
    op: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    activation_bytes: int
    memory_format: str
    fused: tuple[str, ...]


class Network:
    """A network bound to a device.

    parameters, gradients, state: dicts "<layer>.<array>" -> array in document order; writing into the parameter
    arrays is allowed and takes effect at the next call. Arrays that a method returns live until its next call.
    call_number: what random ops of the next training forward draw with; counts up by itself.
    """

    def __init__(self, config: Any, device: str = "cpu", dtype: str = "float32", fuse: bool = True):
        if dtype not in DTYPES:
            raise ParameterError("dtype", f"one of {', '.join(DTYPES)}", dtype)
        self.config, self.dtype, self.fusing = config, dtype, fuse
        self.device = devices.get(device)
        self.seed: int = config.seed
        self.dataset: Any = None  # loaded at the first need: its shape is wanted here unless `input:` says it
        self.sample_shape: tuple[int, ...] = config.input or self._data_shape()
        self.call_number = 0
        self.declared_batch: int | None = config.data.batch_size if config.data is not None else None
        graph = self._graph(self.declared_batch or 1)
        self.output_shape: tuple[int, ...] = graph.output.tensor.shape[1:]
        self.output_place = graph.last.place
        self.reads_lengths: bool = graph.lengths is not None
        self._check_parameters(graph)
        self.store = ParameterStore(graph, self.device, dtype, self.seed)
        self.parameters, self.gradients, self.state = (
            self.store.parameters,
            self.store.gradients,
            self.store.state,
        )
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._arenas: dict[str, Any] = {}
        self._losses: dict[tuple[Any, ...], LossBinding] = {}
        self._current: Program | None = None

    @classmethod
    def from_yaml(
        cls, path: str | os.PathLike[str], device: str = "cpu", dtype: str = "float32", fuse: bool = True
    ) -> "Network":
        """The network of a YAML file. Raises ConfigError with every fault of the file, and DeviceError."""
        from normcore.config.config import load

        return cls(load(pathlib.Path(path)), device, dtype, fuse)

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, Any], device: str = "cpu", dtype: str = "float32", fuse: bool = True
    ) -> "Network":
        """The network of a mapping with the same keys as the YAML file."""
        from normcore.config.config import from_mapping

        return cls(from_mapping(mapping), device, dtype, fuse)

    def _graph(self, batch: int) -> Graph:
        return build(self.config.network, self.sample_shape, batch, self.dtype)

    def _data_shape(self) -> tuple[int, ...]:
        if self.config.source is None:
            raise UsageError(
                "the network has neither `data:` nor `input:`; add `input: [channels, height, width]`"
            )
        self.dataset = self.config.source.load(self.config.base)
        shape: tuple[int, ...] = self.config.data.transforms().output_shape(self.dataset.shape)
        return shape

    def loader(self, arrays: Mapping[str, np.ndarray] | None = None) -> Any:
        """The data as batches for this network. arrays: what a run's normalization was fitted to; else measured.

        Raises UsageError without a `data:` section, and DataError.
        """
        from normcore.data.settings import open_loader

        if self.config.source is None:
            raise UsageError(
                "the network has no `data:` section; add one, or give the data to net.loss and trainer.step"
            )
        return open_loader(
            self.config.data,
            self.config.source,
            self.config.base,
            seed=self.seed,
            dtype=self.dtype,
            arrays=arrays,
            dataset=self.dataset,
        )

    # -- programs ---------------------------------------------------------------------------------------------

    def program(self, batch: int, training: bool, keep: bool = True, input_gradient: bool = False) -> Program:
        """The bound program for a batch size; planned at the first use, views of the same memory afterwards."""
        key = (batch, training, keep, input_gradient)
        found = self._programs.get(key)
        if found is None:
            found = Program(
                self._graph(batch),
                device=self.device,
                dtype=self.dtype,
                seed=self.seed,
                training=training,
                keep=keep,
                input_gradient=input_gradient,
                fusing=self.fusing,
            )
            self._attach(found, "training" if training else "inference")
            self._programs[key] = found
        return found

    def _attach(self, program: Program, arena: str) -> None:
        held = self._arenas.get(arena)
        if held is None or held.nbytes < program.nbytes:
            self._check_budget(program)
            self._arenas[arena] = self.device.empty(max(program.nbytes, self._declared_nbytes(program)))
            for (_, training, *_), other in self._programs.items():
                if ("training" if training else "inference") == arena:
                    other.attach(self._arenas[arena], self.store)
            self._losses.clear()
        program.attach(self._arenas[arena], self.store)

    def _declared_nbytes(self, program: Program) -> int:
        """What the declared batch will need, so that a smaller batch that comes first does not allocate twice."""
        batch = program.graph.input.tensor.shape[0]
        if self.declared_batch is None or batch >= self.declared_batch:
            return 0
        whole = Program(
            self._graph(self.declared_batch),
            device=self.device,
            dtype=self.dtype,
            seed=self.seed,
            training=program.training,
            keep=program.keep,
            input_gradient=program.input_gradient,
            fusing=self.fusing,
        )
        return whole.nbytes if whole.nbytes <= int(self.device.free_memory() * MEMORY_SHARE) else 0

    def _check_budget(self, program: Program) -> None:
        sizes = {b.label: b.nbytes for b in program.buffers}
        self._refuse_over_budget(
            "buffers", program.nbytes, sizes, "Lower data.batch_size or the layers' sizes"
        )

    def _check_parameters(self, graph: Graph) -> None:
        width = (
            3 * np.dtype(self.dtype).itemsize
        )  # the parameter, its gradient and at least one optimizer slot
        sizes = {
            n.path: width * sum(math.prod(a.shape) for a in n.plan.parameters.values()) for n in graph.nodes
        }
        self._refuse_over_budget("parameters", sum(sizes.values()), sizes, "Lower the layers' sizes")

    def _refuse_over_budget(self, what: str, needed: int, sizes: Mapping[str, int], advice: str) -> None:
        free = int(self.device.free_memory() * MEMORY_SHARE)
        if needed <= free:
            return
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
        rows = "\n".join(f"  {label:40} {nbytes / 1e9:9.2f} GB" for label, nbytes in largest)
        raise MemoryBudgetError(
            f"the network's {what} need {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB of memory may be used; "
            f"they were not allocated. The largest:\n{rows}\n{advice}"
        )

    # -- running ----------------------------------------------------------------------------------------------

    def adopt_input(self, x: Any) -> Any:
        """A batch as a C-contiguous array of this device and dtype; a copy only where it must be. Raises ShapeError.

        For a network that reads lengths: Sequences, of which both arrays are adopted.
        """
        if isinstance(x, Sequences) != self.reads_lengths:
            raise ShapeError(
                "expected normcore.Sequences(x, lengths), for a layer of the network names `lengths` among its inputs"
                if self.reads_lengths
                else "expected an array, got Sequences: no layer of the network names `lengths` among its `inputs:`"
            )
        if isinstance(x, Sequences):
            lengths = self.device.adopt(x.lengths)
            if lengths.shape != (len(x),) or lengths.dtype.kind not in "iu":
                raise ShapeError(
                    f"expected whole numbers of shape ({len(x)},) for lengths, got {lengths.dtype} of {lengths.shape}"
                )
            if lengths.dtype != "int64" or not lengths.flags.c_contiguous:
                lengths = self.device.array(lengths, "int64")
            return Sequences(self._adopt_array(x.x), lengths)
        return self._adopt_array(x)

    def _adopt_array(self, x: Any) -> Any:
        x = self.device.adopt(x)
        expected = (x.shape[0] if x.ndim else 0, *self.sample_shape)
        if tuple(x.shape) != expected:
            raise ShapeError(
                f"expected an input of shape (N, {', '.join(map(str, self.sample_shape))}), got {tuple(x.shape)}"
            )
        if x.dtype != self.dtype or not x.flags.c_contiguous:
            if not np.can_cast(np.dtype(str(x.dtype)), np.dtype(self.dtype), "same_kind"):
                raise ParameterError("dtype", f"an array that casts to {self.dtype}", str(x.dtype))
            x = self.device.array(x, self.dtype)
        return x

    def forward(self, x: Any, training: bool = False) -> Any:
        """The network's output (N, ...) for logical inputs (N, *sample_shape). Raises ShapeError."""
        x = self.adopt_input(x)
        program = self.program(x.shape[0], training)
        program.forward(x, self.call_number)
        if training:
            self.call_number += 1
            self._current = program
        return program.output

    def loss(self, x: Any, targets: Any, training: bool = True) -> float:
        """The batch mean of the configured loss; in training mode backward() may follow.

        targets: integers (N,) for classes, or what the loss says. Raises ShapeError and DataError.
        """
        x = self.adopt_input(x)
        program = self.program(x.shape[0], training)
        loss = self.loss_of(program)
        loss.set_targets(targets)
        program.forward(x, self.call_number)
        loss.run()
        if training:
            self.call_number += 1
            self._current = program
        return loss.mean()

    def loss_of(self, program: Program, loss: Any = None) -> LossBinding:
        """The loss (by default the configured one) bound to a program's output and, in training, to its gradient."""
        loss = self.config.loss if loss is None else loss
        key = (id(program), loss)
        found = self._losses.get(key)
        if found is None:
            found = self._losses[key] = LossBinding(loss, program)
        return found

    def forget(self) -> None:
        """Say that the arrays of the last training loss are gone: backward() then needs a new one."""
        self._current = None

    def backward(self, input_gradient: bool = False) -> Any:
        """Overwrite `gradients` with those of the last training loss; returns the input's with input_gradient=True.

        May be called again after one loss. Raises UsageError when there was no training forward.
        """
        program = self._current
        if program is None:
            raise UsageError("backward() needs a loss(x, targets) in training mode before it")
        if input_gradient and not program.input_gradient:
            program = self._again_with_input_gradient(program)
        program.backward()
        return program.input_gradient_array if input_gradient else None

    def _again_with_input_gradient(self, program: Program) -> Program:
        """Run the last step's forward once more in a program that also gives the input's gradient."""
        x = program.x
        loss = self.loss_of(program)
        targets = loss.targets.copy()
        richer = self.program(x.shape[0], True, input_gradient=True)
        call = program.call_number
        states = {path: array.copy() for path, array in self.state.items()}
        other = self.loss_of(richer)
        other.set_targets(targets)
        richer.forward(x, call)
        other.run()
        for path, array in states.items():  # the repeated forward must not count twice in running statistics
            self.state[path][...] = array
        self._current = richer
        return richer

    # -- looking and keeping ----------------------------------------------------------------------------------

    def summary(self, batch: int | None = None) -> list[SummaryRow]:
        """What `normcore summary` prints, a row per layer in document order; plans, but allocates nothing."""
        batch = batch or self.declared_batch or 1
        planned = Program(
            self._graph(batch),
            device=self.device,
            dtype=self.dtype,
            seed=self.seed,
            training=True,
            fusing=self.fusing,
        )
        formats = {path: (node.format, node.covers) for node in planned.nodes for path in node.covers}
        rows = []
        for node in self._graph(batch).nodes:
            format, covers = formats[node.path]
            rows.append(
                SummaryRow(
                    node.path,
                    node.op.name,
                    node.outputs[0].tensor.shape,
                    sum(math.prod(a.shape) for a in node.plan.parameters.values()),
                    node.plan.flops,
                    sum(v.tensor.size * np.dtype(v.tensor.dtype).itemsize for v in node.outputs),
                    format,
                    covers if len(covers) > 1 else (),
                )
            )
        return rows

    def planned_bytes(self, batch: int | None = None) -> int:
        """Bytes of activations, gradients and workspaces that training this batch size shares one arena of."""
        graph = self._graph(batch or self.declared_batch or 1)
        return Program(
            graph,
            device=self.device,
            dtype=self.dtype,
            seed=self.seed,
            training=True,
            keep=False,
            fusing=self.fusing,
        ).nbytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and state as safetensors, to a temporary name first and then renamed."""
        weights_file.write(
            pathlib.Path(path), {k: self.device.to_host(v) for k, v in self.store.everything().items()}
        )

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read what `save` wrote. Raises DataError listing every array that is missing, unknown or misshapen."""
        self.assign(weights_file.read(path), str(path))

    def assign(self, arrays: Mapping[str, Any], origin: str = "given arrays") -> None:
        """Set parameters and state from arrays by path; nothing is changed when anything does not fit."""
        weights_file.assign(self.store.everything(), arrays, self.device, origin)

"""A graph made ready to run for one batch size: every array at its place, every call bound.

Time runs from 0: node i runs forward at time i, the loss at time n, and node i backward at time 2n - i. A buffer's
lifetime is a span of these times, from which `memory.place` shares bytes. In-place kernels are not used: where an
output overlaps its input LLVM's runtime alias checks fall back to scalar code, and shared buffers already give
what they would save.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from normcore.binding import Binding
from normcore.devices.device import Device
from normcore.errors import ParameterError
from normcore.graph.formats import Convert, choose
from normcore.graph.fuse import backward_needs, chain_of, fuse
from normcore.graph.memory import Buffer, place
from normcore.graph.nodes import Graph, Node, Value
from normcore.kernels.accumulate import accumulate
from normcore.layout import logical_view, physical_shape
from normcore.op import Shape

Call = Callable[[], None]


class Program:
    """The forward (and for training the backward) of a graph for one batch size.

    training: run ops in training mode and plan a backward. keep: arrays that backward reads stay untouched until
    the next forward, so that backward may run again (Network); without it their memory is reused as soon as the
    backward has passed (Trainer). input_gradient: also compute the gradient of the input.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        device: Device,
        dtype: str,
        seed: int,
        training: bool,
        keep: bool = True,
        input_gradient: bool = False,
        fusing: bool = True,
    ):
        self.device, self.dtype, self.seed, self.training, self.keep = device, dtype, seed, training, keep
        self.input_gradient = input_gradient
        self.graph = choose(fuse(graph, training) if fusing else fuse_nothing(graph), device.name)
        self.nodes = self.graph.nodes
        self.consumers = self.graph.consumers()
        self.bindings = [self._binding(node) for node in self.nodes]
        self.loss_time = len(self.nodes)
        self.end = 2 * len(self.nodes) + 1
        self._values: dict[int, tuple[Buffer, Value]] = {}  # id(value) -> the buffer it lives in
        self._scratch: dict[tuple[int, str], Buffer] = {}  # (node, array name) -> buffer
        self._gradients: dict[int, Buffer] = {}  # id(value) -> its gradient
        self._parts: dict[
            tuple[int, int], Buffer
        ] = {}  # (consumer node, input slot) -> gradient contribution
        self.wanted = self._wanted()
        self._plan_forward()
        if training:
            self._plan_backward()
        buffers = {id(b): b for b in self._all_buffers()}
        self.buffers = list(buffers.values())
        self.nbytes = place(self.buffers)
        self.forward_calls: list[Call] = []
        self.backward_calls: list[Call] = []

    # -- planning ---------------------------------------------------------------------------------------------

    def _binding(self, node: Node) -> Binding:
        chain, constants = chain_of(node, self.training)
        binding = Binding(
            node.op,
            tuple(v.tensor for v in node.inputs),
            path=node.path,
            dtype=self.dtype,
            format=node.format,
            device=self.device,
            seed=self.seed,
            chain=chain,
            constants=constants,
        )
        binding.t.training = self.training
        binding.t.shape = node.inputs[0].tensor.shape if node.inputs else ()
        return binding

    def _wanted(self) -> set[int]:
        """Ids of values whose gradient somebody needs."""
        wanted: set[int] = {id(self.graph.input)} if self.input_gradient else set()
        for node, binding in zip(self.nodes, self.bindings, strict=True):
            if binding.plan.parameters or any(id(v) in wanted for v in node.inputs):
                wanted.update(id(v) for v in node.outputs)
        return wanted

    def _back(self, index: int) -> int:
        return 2 * len(self.nodes) - index

    def _plan_forward(self) -> None:
        for i, (node, binding) in enumerate(zip(self.nodes, self.bindings, strict=True)):
            for value in node.inputs:
                if id(value) in self._values:
                    self._values[id(value)][0].extend(i)
            for name, value in zip(binding.outputs, node.outputs, strict=True):
                if node.op.is_view and id(node.inputs[0]) in self._values:
                    buffer = self._values[id(node.inputs[0])][0]
                    buffer.extend(i)
                elif node.op.is_view:
                    continue  # a view of the net's input: attached with it
                else:
                    nbytes = value.tensor.size * np.dtype(value.tensor.dtype).itemsize
                    buffer = Buffer(f"{node.path}.{name}", nbytes, [(i, i)])
                self._values[id(value)] = (buffer, value)
            last = (self.end if self.keep else self._back(i)) if self.training else i
            for group, span in ((binding.plan.saved, (i, last)), (binding.plan.workspace, (i, i))):
                for name, array in group.items():
                    nbytes = math.prod(array.shape) * np.dtype(array.dtype or self.dtype).itemsize
                    self._scratch[i, name] = Buffer(f"{node.path}.{name}", nbytes, [span])
        output = self._values.get(id(self.graph.output))
        if output is not None:
            output[0].extend(self.end if self.keep or not self.training else self.loss_time)

    def _plan_backward(self) -> None:
        for i, node in enumerate(self.nodes):
            if not self._runs_backward(i):
                continue
            binding = self.bindings[i]
            if not binding.differentiable and not node.op.is_view and not node.op.shares_gradient:
                raise ParameterError(
                    "network", f"ops with a gradient ({node.path}: {node.op.name} has none)", node.op.name
                )
            needs, until = backward_needs(node), self.end if self.keep else self._back(i)
            read = [*(node.inputs if "x" in needs else ()), *(node.outputs if "y" in needs else ())]
            for value in read:
                if id(value) in self._values:
                    self._values[id(value)][0].extend(until)
            for name in binding.plan.workspace:
                self._scratch[i, name].use(self._back(i), self._back(i))
        # Written by the loss, which does not run again when backward does.
        self._gradient_of(self.graph.output).use(self.loss_time, self.end if self.keep else self.loss_time)
        for i in range(len(self.nodes) - 1, -1, -1):
            if self._runs_backward(i):
                self._plan_node_gradients(i)

    def _runs_backward(self, i: int) -> bool:
        node = self.nodes[i]
        return any(id(v) in self.wanted for v in node.outputs)

    def _gradient_of(self, value: Value) -> Buffer:
        if id(value) not in self._gradients:
            nbytes = value.tensor.size * np.dtype(value.tensor.dtype).itemsize
            self._gradients[id(value)] = Buffer(f"d {value.name}", nbytes)
        return self._gradients[id(value)]

    def _plan_node_gradients(self, i: int) -> None:
        node, time = self.nodes[i], self._back(i)
        dy = self._gradient_of(node.outputs[0])
        dy.use(dy.spans[0][0] if dy.spans else time, time)
        for slot, value in enumerate(node.inputs):
            if id(value) not in self.wanted:
                continue
            readers = self._backward_readers(value)
            if node.op.is_view or node.op.shares_gradient:
                part = dy
            elif len(readers) == 1:
                part = self._gradient_of(value)
            else:
                part = Buffer(
                    f"d {value.name} by {node.path}",
                    value.tensor.size * np.dtype(value.tensor.dtype).itemsize,
                )
            self._parts[i, slot] = part
            total_time = self._back(readers[0][0])  # the first reader is the last to run backward
            if len(readers) == 1:
                self._gradients[id(value)] = part
                part.use(time, time)
            else:
                part.use(time, total_time)
                if (i, slot) == readers[0]:
                    self._gradient_of(value).use(total_time, total_time)
            producer_time = self._producer_time(value)
            self._gradients.get(id(value), part).use(time if len(readers) == 1 else total_time, producer_time)

    def _backward_readers(self, value: Value) -> list[tuple[int, int]]:
        """(node index, slot) of every consumer that sends a gradient to the value, in forward order."""
        return [
            (k, slot)
            for k, node in enumerate(self.nodes)
            if self._runs_backward(k)
            for slot, read in enumerate(node.inputs)
            if read is value
        ]

    def _producer_time(self, value: Value) -> int:
        if value.producer is None:
            return self.end
        return self._back(self.nodes.index(value.producer))

    def _all_buffers(self) -> list[Buffer]:
        made = [b for b, _ in self._values.values()] + list(self._scratch.values())
        return [
            b
            for b in made + list(self._gradients.values()) + list(self._parts.values())
            if b.nbytes and b.spans
        ]

    # -- attaching --------------------------------------------------------------------------------------------

    def attach(self, arena: Any, parameters: Any) -> None:
        """Carve every array out of the arena (bytes on the device) and bind the calls.

        parameters: has `arrays(path)` -> {name: array} with parameters, gradients ("d" + name) and state.
        """
        self.forward_calls.clear()
        self.backward_calls.clear()
        self._input_slots: list[tuple[Any, str, int, Shape, Node]] = []
        for i, (node, binding) in enumerate(zip(self.nodes, self.bindings, strict=True)):
            for name, array in parameters.arrays(node.path, binding.plan).items():
                binding.attach(name, array)
            for group in (binding.plan.saved, binding.plan.workspace):
                for name, spec in group.items():
                    binding.attach(
                        name, self._carve(arena, self._scratch[i, name], spec.shape, spec.dtype or self.dtype)
                    )
            binding.attach_inputs(tuple(self._value_array(arena, v, node.format) for v in node.inputs))
            for name, value in zip(binding.outputs, node.outputs, strict=True):
                format = value.format if isinstance(node.op, Convert) else node.format
                binding.attach(name, self._value_array(arena, value, format))
            if not node.op.is_view:
                self.forward_calls.append(functools.partial(binding.run_forward, binding.t))
        output = self.graph.output
        self.y = self._value_array(arena, output, output.format)
        self.output = None if self.y is None else logical_view(self.y, output.format)
        if self.training:
            self._attach_backward(arena)

    def _attach_backward(self, arena: Any) -> None:
        self.dy = self._gradient_array(
            arena, self._gradients[id(self.graph.output)], self.graph.output, FIRST
        )
        for i in range(len(self.nodes) - 1, -1, -1):
            if not self._runs_backward(i):
                continue
            node, binding = self.nodes[i], self.bindings[i]
            dy_format = node.outputs[0].format if isinstance(node.op, Convert) else node.format
            binding.attach(
                "dy",
                self._gradient_array(arena, self._gradients[id(node.outputs[0])], node.outputs[0], dy_format),
            )
            parts = [
                self._gradient_array(arena, self._parts[i, slot], value, node.format)
                if (i, slot) in self._parts
                else None
                for slot, value in enumerate(node.inputs)
            ]
            if node.op.is_elementwise and any(p is not None for p in parts):
                parts = [
                    self._spare(arena, v, node) if p is None else p
                    for p, v in zip(parts, node.inputs, strict=True)
                ]
            binding.attach_inputs(tuple(parts), prefix="d")
            if not (node.op.is_view or node.op.shares_gradient):
                self.backward_calls.append(functools.partial(binding.run_backward, binding.t))
            self._attach_sums(arena, i, binding)
        self.input_gradient_array = None
        if self.input_gradient and id(self.graph.input) in self._gradients:
            self.input_gradient_array = self._gradient_array(
                arena, self._gradients[id(self.graph.input)], self.graph.input, FIRST
            )

    def _attach_sums(self, arena: Any, i: int, binding: Binding) -> None:
        """After the last contribution to a value's gradient: add them up, in forward order."""
        for slot, value in enumerate(self.nodes[i].inputs):
            readers = self._backward_readers(value)
            if id(value) not in self.wanted or len(readers) < 2 or (i, slot) != readers[0]:
                continue
            parts = [self._gradient_array(arena, self._parts[r], value, FIRST).reshape(-1) for r in readers]
            total = self._gradient_array(arena, self._gradients[id(value)], value, FIRST).reshape(-1)
            self.backward_calls.append(functools.partial(accumulate, binding.t, parts, total))

    def _spare(self, arena: Any, value: Value, node: Node) -> Any:
        """Somewhere to write a gradient nobody wants, for elementwise kernels that always give all of them."""
        return self.device.empty(value.tensor.size * np.dtype(value.tensor.dtype).itemsize).view(
            value.tensor.dtype
        )

    def _carve(self, arena: Any, buffer: Buffer, shape: Shape, dtype: str) -> Any:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if not nbytes:
            return self.device.empty(0).view(dtype).reshape(shape)
        return arena[buffer.offset : buffer.offset + nbytes].view(dtype).reshape(shape)

    def _value_array(self, arena: Any, value: Value, format: str) -> Any:
        if id(value) not in self._values:
            return None  # the net's input, or a view of it: attached at each call
        shape = physical_shape(value.tensor.shape, format)
        return self._carve(arena, self._values[id(value)][0], shape, value.tensor.dtype)

    def _gradient_array(self, arena: Any, buffer: Buffer, value: Value, format: str) -> Any:
        return self._carve(arena, buffer, physical_shape(value.tensor.shape, format), value.tensor.dtype)

    # -- running ----------------------------------------------------------------------------------------------

    def set_input(self, x: Any) -> None:
        """Attach the net's input: a C-contiguous device array of the graph's input shape and dtype, or Sequences
        of such arrays where the graph reads lengths."""
        attached = {id(self.graph.input): x}
        if self.graph.lengths is not None:
            attached = {id(self.graph.input): x.x, id(self.graph.lengths): x.lengths}
        for node, binding in zip(self.nodes, self.bindings, strict=True):
            if not any(id(v) in attached for v in node.inputs):
                continue
            t = binding.t
            if binding.variadic:
                arrays = list(getattr(t, binding.input_names[0]))
                for slot, value in enumerate(node.inputs):
                    if id(value) in attached:
                        arrays[slot] = attached[id(value)].reshape(
                            physical_shape(value.tensor.shape, node.format)
                        )
                setattr(t, binding.input_names[0], tuple(arrays))
            else:
                for name, value in zip(binding.input_names, node.inputs, strict=True):
                    if id(value) in attached:
                        setattr(
                            t,
                            name,
                            attached[id(value)].reshape(physical_shape(value.tensor.shape, node.format)),
                        )
            if node.op.is_view:
                view = attached[id(node.inputs[0])].reshape(node.outputs[0].tensor.shape)
                attached[id(node.outputs[0])] = view
                if node.outputs[0] is self.graph.output:
                    self.y = self.output = view

    def forward(self, x: Any, call_number: int) -> None:
        """Run forward on x (as in set_input), which is held until backward."""
        self.x, self.call_number = x, call_number
        self.set_input(x)
        for binding in self.bindings:
            binding.t.call = call_number
        for call in self.forward_calls:
            call()

    def backward(self) -> None:
        for call in self.backward_calls:
            call()


FIRST = "channels_first"


def fuse_nothing(graph: Graph) -> Graph:
    """The graph in fresh nodes, unfused: programs set formats and must not share nodes with each other."""
    nodes = []
    for node in graph.nodes:
        copy = Node(**{**vars(node)})
        for value in copy.outputs:
            value.producer = copy
        nodes.append(copy)
    return dataclasses.replace(graph, nodes=nodes)

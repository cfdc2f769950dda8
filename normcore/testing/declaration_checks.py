"""Checks of what an op declares: docs, samples, errors."""

import inspect
import sys

from normcore.bound_layer import Layer
from normcore.errors import NormcoreError, ParameterError, PluginError, ShapeError
from normcore.op import Op
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Failed, Skipped
from normcore.testing.running import Case
from normcore.testing.samples import ErrorSample


def docs(cls: type[Op], device: str) -> str:
    """The op has a docstring that names its parameters, and its module or the op says where it comes from."""
    text = inspect.cleandoc(cls.__doc__ or "")
    if not text or text.startswith(f"{cls.__name__}("):  # what dataclasses writes when there is none
        raise Failed("no docstring: say in one sentence what the op computes, with its formula")
    module = inspect.getdoc(sys.modules.get(cls.__module__)) or ""
    unnamed = [p.name for p in cls.parameters() if p.name not in text and p.name not in module]
    if unnamed:
        raise Failed(f"the docstring does not mention the parameter {', '.join(unnamed)}")
    if not cls.source and "ource" not in module:
        return "no source declared"
    return ""


def samples(cls: type[Op], device: str) -> str:
    """Samples are there, each with a reason, and the op can be built from each."""
    try:
        found = samples_of(cls)
    except Skipped as missing:
        raise Failed(str(missing)) from None
    for sample in found:
        if not sample.reason.strip():
            raise Failed(f"the sample with shapes {list(sample.input_shapes)} has no reason")
        op = cls.make(**sample.params)
        expected = len(op.inputs)
        if not op.inputs[0].startswith("*") and len(sample.input_shapes) != expected:
            raise Failed(
                f"sample {sample.reason!r}: {len(sample.input_shapes)} shapes, the op takes {expected} inputs"
            )
    return f"{len(found)} samples" + ("" if cls.samples else ", derived")


def errors(cls: type[Op], device: str) -> str:
    """Wrong parameters and shapes are refused with a message that says why."""
    if not cls.error_samples:
        if not cls.parameters() and cls.make().is_elementwise and len(cls.make().inputs) == 1:
            return "nothing can be wrong: no parameters, any shape"
        raise Skipped("the op declares no error samples")
    for sample in cls.error_samples:
        _error(cls, sample, device)
    return f"{len(cls.error_samples)} error samples"


def _error(cls: type[Op], sample: ErrorSample, device: str) -> None:
    import numpy as np

    try:
        op = cls.make(**sample.params)
        if sample.shape is not None:
            layer = Layer(op, sample.shape, device)
            if sample.training:
                layer.forward(*(np.ones(s, np.float32) for s in layer.input_shapes), training=True)
    except (ParameterError, ShapeError) as fault:
        if sample.message_contains not in str(fault):
            raise Failed(
                f"{sample.reason}: the message {str(fault)!r} does not contain {sample.message_contains!r}"
            ) from None
        return
    except NormcoreError as fault:
        raise Failed(
            f"{sample.reason}: raised {type(fault).__name__}, expected ParameterError or ShapeError"
        ) from None
    raise Failed(f"{sample.reason}: {dict(sample.params)} with shape {sample.shape} was accepted")


def cuda(cls: type[Op], device: str) -> str:
    """The op has CUDA kernels, forward and backward."""
    if cls.is_view:
        return "a view needs none"
    if not cls.has_cuda():
        raise Skipped("no CUDA kernels: on a GPU the op runs on the CPU, by copying, with a warning")
    if cls.differentiable and not hasattr(cls, "backward_cuda"):
        raise Failed(
            "forward_cuda without backward_cuda: until both are there, the op runs on the CPU, by copying"
        )
    return ""


def yaml(case: Case) -> str:
    """The op written to YAML and read back is the same op with the same parameters."""
    try:
        from normcore.config.config import from_mapping
    except ImportError as missing:
        raise Skipped(f"no configuration reader ({missing})") from None
    from normcore.registry import default

    op = case.op
    if len(case.shapes) != 1:
        raise Skipped("an op of several inputs stands in a graph, not in a sequence")
    if len(case.shapes[0]) < 2:
        raise Skipped("a network's samples have at least one dimension")
    try:
        default().get("op", op.name)
    except PluginError:
        raise Skipped("the op is not registered by an installed plugin") from None
    import io

    from ruamel.yaml import YAML

    wanted = op.hyperparameters()
    text = io.StringIO()
    YAML(typ="safe").dump(
        {"input": list(case.shapes[0][1:]), "network": [{op.name: _plain(wanted)}], "loss": "mse"}, text
    )
    config = from_mapping(YAML(typ="safe").load(text.getvalue()))
    (entry,) = config.network
    got = getattr(entry, "op", None)
    if not isinstance(got, Op):
        raise Failed(f"written {wanted}, read back {entry}")
    if type(got) is not type(op) or _plain(got.hyperparameters()) != _plain(wanted):
        raise Failed(f"written {wanted}, read back {got.hyperparameters()}")
    return ""


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value

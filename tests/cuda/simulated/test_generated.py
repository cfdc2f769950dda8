"""CUDA kernels that the engine writes from declarations: template ops and learnable elementwise ops."""

import importlib.util
import pathlib

import pytest

from normcore.testing.against_cpu import comparisons

TESTS = pathlib.Path(__file__).parents[2]


def _load(path):
    spec = importlib.util.spec_from_file_location(f"generated_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


templates = _load(TESTS / "templates" / "test_templates.py")
learnable = _load(TESTS / "derivation" / "test_learnable.py")
OPS = [*templates.OTHERS, templates.examples.plain_group_norm, templates.examples.plain_lp_pool]
OPS += [learnable.learned_tanh, learnable.learned_mix]
CASES = [c for op in OPS for c in comparisons(op, 400)]


@pytest.mark.parametrize("comparison", CASES, ids=[c.label for c in CASES])
def test_same_as_cpu(comparison):
    comparison.run(uncompiled=True)

"""Dependencies point one way: read from the imports, not from what happens to be loaded."""

import ast
import math
import pathlib
from dataclasses import dataclass

import pytest

import normcore
from normcore.config.data_section import DataKeys
from normcore.config.train_settings import TrainSettings

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAMILIES = sorted(p.name for p in (ROOT / "plugins").iterdir() if p.is_dir() and list(p.glob("*.py")))


@dataclass(frozen=True)
class Import:
    """One import statement's target, and where it stands. lazy: inside a function."""

    module: str
    target: str
    lazy: bool
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.module} imports {self.target}"


def python_files(folder: str) -> list[pathlib.Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def module_name(path: pathlib.Path, root: pathlib.Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: pathlib.Path, module: str) -> list[Import]:
    """Every import in a file but those for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types: set[int] = set()
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for_types |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    found = []
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # "from package import name" may import a module of that name: both are looked at.
            targets = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for target in targets:
            where = str(path.relative_to(ROOT))
            found.append(Import(module, target, id(node) in inside, where, node.lineno))
    return found


def core_imports() -> list[Import]:
    return [i for p in python_files("normcore") for i in imports_of(p, module_name(p, ROOT))]


# The house, floor by floor: a module imports from floors below its own and from its own unit.
FLOORS = [
    ["normcore.errors"],
    ["normcore.component", "normcore.hookspecs", "normcore.sequences", "normcore.storage"],
    ["normcore.op", "normcore.shapes"],
    ["normcore.registry", "normcore.layout", "normcore.weights_file"],
    ["normcore.kernels"],
    ["normcore.elementwise_loop"],
    ["normcore.derivation", "normcore.elementwise_kernels"],
    ["normcore.elementwise_ops", "normcore.devices", "normcore.random"],
    ["normcore.elementwise_learnable", "normcore.templates"],
    ["normcore.initializers"],
    ["normcore.data"],
    ["normcore.config", "normcore.binding"],
    ["normcore.graph"],
    ["normcore.bound_layer", "normcore.parameters"],
    ["normcore.training.losses", "normcore.training.loss_binding"],
    ["normcore.network"],
    ["normcore.training"],
    ["normcore.testing", "normcore.interop"],
    ["normcore.measuring"],
    ["normcore.builtins"],
]
# Looked up while running, never while importing: module -> what it reaches up to, and why.
UPWARD = {
    # the text of a fused kernel is made of the scalar functions of elementwise ops
    ("normcore.kernels", "normcore.elementwise_kernels"),
    # the decorator makes ops of the class that fits
    ("normcore.elementwise_ops", "normcore.elementwise_learnable"),
    # a relative path in a configuration may name a data source's settings
    ("normcore.network", "normcore.training"),
}
SAMPLES = ("normcore.testing.samples", "normcore.testing.Sample", "normcore.testing.ErrorSample")
FLOOR_OF = {unit: k for k, units in enumerate(FLOORS) for unit in units}


def unit_of(module):
    """The longest name in the table that the module belongs to."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in FLOOR_OF:
            return name
    return ""


def test_every_module_of_the_core_has_a_floor():
    for path in python_files("normcore"):
        module = module_name(path, ROOT)
        assert module == "normcore" or unit_of(module), f"{module}: give it a floor in {__file__}"


def test_imports_point_down_only():
    faults = []
    for found in core_imports():
        source, target = unit_of(found.module), unit_of(found.target)
        if not source or not target or source == target:
            continue
        down = FLOOR_OF[target] < FLOOR_OF[source]
        if not down and not (found.lazy and (source, target) in UPWARD):
            faults.append(str(found))
    assert not faults, "\n".join(faults)


def test_the_core_imports_no_plugin_and_no_command_line():
    banned = (*FAMILIES, "normcore_cli", "plugins", "cli")
    faults = [str(i) for i in core_imports() if i.target.split(".")[0] in banned]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("family", FAMILIES)
def test_plugins_import_normcore_only_and_not_each_other(family):
    faults = []
    for path in python_files(f"plugins/{family}"):
        for found in imports_of(path, module_name(path, ROOT / "plugins")):
            top = found.target.split(".")[0]
            if top in {*FAMILIES, "normcore_cli", "plugins", "cli"} - {family}:
                faults.append(str(found))
            # What an op file may know of the engine: declarations, kernels, shapes; nothing that runs it.
            above = FLOOR_OF.get(unit_of(found.target), 0) > FLOOR_OF["normcore.initializers"]
            if above and not found.target.startswith(SAMPLES):
                faults.append(f"{found} (from the floors above the kernels)")
    assert not faults, "\n".join(faults)


def test_the_command_line_imports_normcore_and_no_plugin():
    faults = []
    for path in python_files("cli"):
        for found in imports_of(path, module_name(path, ROOT / "cli")):
            if found.target.split(".")[0] in (*FAMILIES, "plugins", "cli", "numba"):
                faults.append(str(found))
    assert not faults, "\n".join(faults)


def test_the_host_side_of_cuda_stands_in_one_place():
    """A move to numba.cuda's successor touches devices/cuda*.py, kernels/packs_cuda.py, the PTX tests' helper, and decorators."""
    allowed = ("normcore.devices.cuda", "normcore.testing.ptx", "normcore.kernels.packs_cuda")
    faults = []
    for found in core_imports():
        cuda = found.target.startswith(("numba.cuda", "cupy", "cuda."))
        if cuda and not found.module.startswith(allowed):
            faults.append(str(found))
    for family in FAMILIES:
        for path in python_files(f"plugins/{family}"):
            for found in imports_of(path, family):
                if found.target.startswith(("numba", "cupy", "cuda.")):
                    faults.append(str(found))
    assert not faults, "\n".join(faults)


def test_the_core_knows_no_op_by_name():
    # Words of the YAML's blocks and roles, NumPy's names and functions of math that ops are also called by.
    words = {"add", "concat", "scale", "identity", "abs", "exponential", "clip", "reshape", *dir(math)}
    # An alias may also be a key of the YAML's sections, as `data.normalize` is; in the core the word is that key.
    # An op's own name may not: nobody could tell which is meant.
    keys = {p.name for section in (DataKeys, TrainSettings) for p in section.parameters()}
    names = {r.name for r in normcore.ops()} | {a for r in normcore.ops() for a in r.aliases} - keys
    faults = []
    for path in python_files("normcore"):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names - words:
                faults.append(f"{path.relative_to(ROOT)}:{node.lineno}: names the op {node.value!r}")
    assert not faults, "\n".join(faults)

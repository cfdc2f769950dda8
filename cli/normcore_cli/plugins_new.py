"""`normcore plugins new NAME`: the files of a plugin that works as it stands, for its author to change.

The op files are the modules in templates/, with `my_op` and `MyOp` standing for the op's name; they are read, never
imported. What surrounds them in a package is here.
"""

import importlib.resources
import importlib.util
import keyword
import re
import sys
from pathlib import Path

import click

from normcore_cli import options

KINDS = {
    "elementwise": "a function of each element, and its slope",
    "normalization": "a row norm with a learned scale",
    "pooling": "a value for each window of an image",
    "layer": "a layer that learns a matrix",
}
# The example network's layers before the op and behind it.
AROUND = {
    "elementwise": ("flatten, dense: 32, ", ", dense: 10"),
    "normalization": ("flatten, dense: 32, ", ", relu, dense: 10"),
    "pooling": ("", ", flatten, dense: 10"),
    "layer": ("flatten, dense: 32, ", ", relu, dense: 10"),
}

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
description = "{name}, {about}, for normcore"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["normcore>={version}"]

[project.optional-dependencies]
test = ["pytest>=8"]

# This line is what makes normcore find the op wherever the package is installed.
[project.entry-points.normcore]
{name} = "{name}"

[tool.hatch.build.targets.wheel]
only-include = ["{name}.py"]
"""

TEST = '''\
"""normcore's conformance suite on {name}: every check is a test.

A check that cannot hold is declared, with its reason: parametrize_checks({found}, expected_failures={{"check": "why"}}).
It must fail then, so that you notice when it no longer does.
"""

import normcore.testing
from {name} import {found}


@normcore.testing.parametrize_checks({found})
def test_conformance(check):
    check()
'''

EXAMPLE = """\
name: {name}-example
data: {{source: mnist_sample, batch_size: 100}}
network: [{before}{name}{behind}]
optimizer: {{sgd: {{lr: 0.1, momentum: 0.9}}}}
train: {{epochs: 1}}
"""

README = """\
# {name}

{about_sentence} for [normcore](https://pypi.org/project/normcore/). The op is in {name}.py: its formula, kernels and samples.

Check it, and train with it, without installing anything:

```bash
normcore check {name}.py
normcore train example.yaml --plugin {name}.py
```

Install it (`-e` keeps following your edits); from then on every network may say `{name}`:

```bash
pip install -e ".[test]"
normcore check {name}
normcore train example.yaml
python -m pytest
```
"""


@click.command("new")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="elementwise",
    show_default=True,
    help="; ".join(f"{kind}: {about}" for kind, about in KINDS.items()) + ".",
)
@click.option("--single-file", is_flag=True, help="Write ./NAME.py alone, for --plugin NAME.py.")
@options.plugin
@options.debug
def command(name: str, kind: str, single_file: bool, plugins: tuple[str, ...]) -> None:
    """Write a plugin that works at once: the package ./NAME/ with an op called NAME, to be changed into yours.

    The package has the op's file, a pyproject.toml with the entry point, a test, a README and a network that trains
    with the op.
    """
    from normcore import __version__

    target = Path(f"{name}.py" if single_file else name)
    _refuse(name, target, plugins)
    if single_file:
        target.write_text(op_file(name, kind), encoding="utf-8")
        click.echo(f"wrote {target}; next:\n  normcore check {target}")
        return
    about = KINDS[kind]
    before, behind = AROUND[kind]
    words = {
        "name": name,
        "found": name if kind == "elementwise" else class_name(name),
        "about": about,
        "about_sentence": about[0].upper() + about[1:] + ",",
        "version": ".".join(__version__.split(".")[:2]),
        "before": before,
        "behind": behind,
    }
    target.mkdir()
    for file, text in {
        f"{name}.py": op_file(name, kind),
        "pyproject.toml": PYPROJECT.format(**words),
        f"test_{name}.py": TEST.format(**words),
        "example.yaml": EXAMPLE.format(**words),
        "README.md": README.format(**words),
    }.items():
        (target / file).write_text(text, encoding="utf-8")
    click.echo(
        f"wrote {target}/: {name}.py, pyproject.toml, test_{name}.py, example.yaml, README.md; next:\n"
        f"  cd {target}\n"
        f"  normcore check {name}.py\n"
        f"  normcore train example.yaml --plugin {name}.py\n"
        f'  pip install -e ".[test]"'
    )


def op_file(name: str, kind: str) -> str:
    """The text of the template of that kind, for an op of that name."""
    template = importlib.resources.files("normcore_cli") / "templates" / f"{kind}.py"
    text = template.read_text(encoding="utf-8")
    return text.replace("MyOp", class_name(name)).replace("my_op", name)


def class_name(name: str) -> str:
    """lp_norm -> LpNorm."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _refuse(name: str, target: Path, plugins: tuple[str, ...]) -> None:
    """Raises PluginError for a name that the op, its file or its package could not have."""
    from normcore.config.sections import BLOCKS
    from normcore.errors import PluginError, snake_case
    from normcore.op import RESERVED_NAMES

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        snake = snake_case(name)
        hint = f"; did you mean {snake!r}?" if re.fullmatch(r"[a-z][a-z0-9_]*", snake) else ""
        raise PluginError(
            f"name {name!r}: expected lower_snake_case (a letter, then letters, digits and underscores){hint}"
        )
    if keyword.iskeyword(name) or name in RESERVED_NAMES or name in BLOCKS:
        owner = "Python" if keyword.iskeyword(name) else "normcore"
        raise PluginError(f"name {name!r} is a word of {owner}'s own; choose another")
    if target.exists():
        raise PluginError(f"{target} is there already; choose another name, or move it away")
    registry = options.load_plugins(plugins)
    if name in registry.names("op"):
        owner = registry.get("op", name).plugin.name
        raise PluginError(f"op {name!r} is already brought by plugin {owner!r}; choose another name")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise PluginError(f"a Python module {name!r} exists already and would be hidden; choose another name")

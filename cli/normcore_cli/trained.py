"""A finished run, ready to be used: its network with the best checkpoint's weights."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from normcore_cli import options

if TYPE_CHECKING:
    from normcore.config.config import Config
    from normcore.training.checkpoint import Checkpoint
    from normcore.training.run_folder import RunFolder


def open_run(
    path: str,
    overrides: Sequence[str],
    plugins: Sequence[str],
    allow_plugins: bool,
    device: str,
    input_shape: tuple[int, ...] | None = None,
) -> tuple["RunFolder", Any, "Checkpoint"]:
    """(run, network, checkpoint). input_shape: a sample's, so that the data need not be there.

    Raises UsageError for a folder that is no run, DataError for a checkpoint that is missing or does not fit.
    """
    from normcore.network import Network
    from normcore.training import checkpoint as checkpoints
    from normcore.training.run_folder import RunFolder

    run = RunFolder.open(path)
    config = _configuration(run, overrides, plugins, allow_plugins)
    if input_shape is not None:
        config = dataclasses.replace(config, input=input_shape)
    found = checkpoints.best(run.checkpoints)
    # The starting weights of another run are of no use now, and that run may be gone.
    net = Network(dataclasses.replace(config, start_from=None), device)
    arrays = {
        name: array for name, array in found.arrays.items() if "/" not in name
    }  # without optimizer slots
    net.assign(arrays, str(found.path))
    return run, net, found


def _configuration(
    run: "RunFolder", overrides: Sequence[str], plugins: Sequence[str], allow_plugins: bool
) -> "Config":
    """The run's configuration; says which plugin files it was trained with where they make a difference."""
    from normcore.errors import ConfigError, Problem

    used = _plugins(run)
    try:
        config = options.load(str(run.config_file), overrides, plugins, allow_plugins)
    except ConfigError as fault:
        loaded = {plugin.origin for plugin in options.load_plugins(()).plugins}
        missing = [path for path in used if path not in loaded]
        hints = [
            Problem(f"this run was trained with --plugin {path}; if you trust it, give it again")
            for path in missing
        ]
        raise ConfigError([*fault.problems, *hints]) from None
    for plugin in options.load_plugins(()).plugins:
        if plugin.origin in used and plugin.digest != used[plugin.origin]:
            click.echo(f"warning: {plugin.origin} has changed since the run was trained", err=True)
    return config


def _plugins(run: "RunFolder") -> dict[str, str]:
    """Path -> digest of the plugin files that the run was trained with."""
    try:
        found = json.loads(run.environment_file.read_text(encoding="utf-8"))["plugins"]
        return {plugin["path"]: plugin["sha256"] for plugin in found}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # only for hints: a run without it can still be used

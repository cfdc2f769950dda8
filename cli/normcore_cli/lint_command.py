"""`normcore lint FILE`: everything that is wrong with a network's file, without training it."""

import click

from normcore_cli import options


@click.command("lint")
@click.argument("file")
@options.configuration
@options.as_json
def command(
    file: str, overrides: tuple[str, ...], plugins: tuple[str, ...], allow_plugins: bool, as_json: bool
) -> int:
    """Check FILE: its YAML, names, types and values, then every layer's shapes and the loss. Exit
    status 2 when it has faults.

    Each fault stands in a line of its own as file:line:column. The data are opened for their shape.
    """
    import dataclasses

    from normcore.errors import ConfigError, NormcoreError, Problem
    from normcore_cli.table import counted

    try:
        layers = _check(file, overrides, plugins, allow_plugins)
    except NormcoreError as fault:  # data that are not there, and what else has no place in the file
        if not as_json:
            raise
        problems = fault.problems if isinstance(fault, ConfigError) else [Problem(str(fault), file)]
        options.print_json({"ok": False, "problems": [dataclasses.asdict(p) for p in problems]})
        return fault.exit_status
    if as_json:
        options.print_json({"ok": True, "problems": []})
    else:
        click.echo(f"{file}: no problems ({counted(layers, 'layer')})")
    return 0


def _check(file: str, overrides: tuple[str, ...], plugins: tuple[str, ...], allow_plugins: bool) -> int:
    """The number of layers. Raises ConfigError, DataError, and UsageError for mixed targets that the loss does
    not take."""
    from normcore.graph.build import build
    from normcore.training.data_checks import check_mixing, check_targets

    config = options.load(file, overrides, plugins, allow_plugins)
    shape, batch, dataset = config.input, 1, None
    if config.data is not None and config.source is not None:
        batch = config.data.batch_size
        dataset = config.source.load(config.base)
        shape = shape or config.data.transforms().output_shape(dataset.shape)
    graph = build(config.network, shape or (), batch, "float32")
    if dataset is not None:  # only a network with data is there to be trained
        reads_lengths = graph.lengths is not None
        classes = check_targets(config.loss, graph.output.tensor, graph.last.place, reads_lengths, dataset)
        check_mixing(config.loss, classes, config.data.transforms())
    return len(graph.nodes)

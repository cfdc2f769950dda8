"""`normcore warm FILE`: compile the kernels of a network now, so that its first training starts at once."""

import sys
import time

import click

from normcore_cli import options


@click.command("warm")
@click.argument("file")
@options.configuration
@options.device
@options.as_json
def command(
    file: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device: str,
    as_json: bool,
) -> None:
    """Compile every kernel that training and evaluating FILE needs, and keep them in the cache."""
    from normcore.kernels import kernel
    from normcore.network import Network
    from normcore.training.loop import Trainer
    from normcore.training.warm_up import warm_up
    from normcore_cli.progress import display
    from normcore_cli.table import counted

    started = time.perf_counter()
    config = options.load(file, overrides, plugins, allow_plugins)
    view = display(sys.stderr if as_json else sys.stdout)
    net = Network(config, device)
    before = kernel.statistics
    try:
        if config.source is not None:
            Trainer(net, observer=view).prepare()
        else:
            size = {net.declared_batch or 1}
            warm_up(net, config.loss, None, (size, size), view)
    finally:
        view.close()
    after = kernel.statistics
    compiled, loaded = after.compiled - before.compiled, after.loaded - before.loaded
    seconds = time.perf_counter() - started
    if as_json:
        options.print_json({"compiled": compiled, "loaded": loaded, "seconds": round(seconds, 3)})
    else:
        counts = f"{counted(compiled, 'kernel')} compiled, {loaded} from the cache, {seconds:.1f} s"
        click.echo(f"{config.name} on {net.device.name}: {counts}")

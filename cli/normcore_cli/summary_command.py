"""`normcore summary FILE`: the layers of a network, before anything is trained."""

import dataclasses

import click

from normcore_cli import options


@click.command("summary")
@click.argument("file")
@options.configuration
@options.device
@click.option("--batch", type=click.IntRange(min=1), help="Batch size; by default data.batch_size.")
@options.as_json
def command(
    file: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device: str,
    batch: int | None,
    as_json: bool,
) -> None:
    """Show the network in FILE (or of a run's folder) layer by layer.

    For each layer: name, op, output shape, parameters, FLOPs of a forward pass, activation memory, memory
    format, and the kernels that are fused into one.
    """
    from normcore.network import Network
    from normcore_cli.table import count, size, table

    config = options.load(file, overrides, plugins, allow_plugins)
    net = Network(config, device)
    batch = batch or net.declared_batch or 1
    rows = net.summary(batch)
    totals = {
        "parameters": sum(row.parameters for row in rows),
        "flops": sum(row.flops for row in rows),
        "activation_bytes": sum(row.activation_bytes for row in rows),
        "planned_bytes": net.planned_bytes(batch),
    }
    if as_json:
        layers = [dataclasses.asdict(row) for row in rows]
        head = {"name": config.name, "device": net.device.name, "dtype": net.dtype, "batch": batch}
        options.print_json({**head, "input_shape": net.sample_shape, "layers": layers, **totals})
        return
    click.echo(
        f"{config.name}: input {list(net.sample_shape)}, batch {batch}, {net.dtype} on {net.device.name}\n"
    )
    cells = [
        (
            row.name,
            row.op,
            "x".join(map(str, row.output_shape)),
            f"{row.parameters:,}",
            count(row.flops),
            size(row.activation_bytes),
            row.memory_format,
            " + ".join(row.fused),
        )
        for row in rows
    ]
    headers = ("layer", "op", "output", "parameters", "FLOPs", "memory", "format", "fused")
    click.echo(table(headers, cells, right=(3, 4, 5)))
    planned, flops = size(totals["planned_bytes"]), count(totals["flops"])
    flops += "FLOPs" if flops[-1].isalpha() else " FLOPs"  # 4.5 GFLOPs, 120,832 FLOPs
    click.echo(
        f"\n{totals['parameters']:,} parameters, {flops} forward, "
        f"{size(totals['activation_bytes'])} of activations; training shares {planned} among all buffers"
    )

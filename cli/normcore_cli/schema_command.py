"""`normcore schema`: the JSON Schema of network files, from everything installed."""

import click

from normcore_cli import options


@click.command("schema")
@options.plugin
@options.debug
@click.option("--json", "_as_json", is_flag=True, help="The schema is JSON with or without it.")
def command(plugins: tuple[str, ...], _as_json: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of network files.

    An editor completes and checks from it: save it, and begin a network's file with the line
    # yaml-language-server: $schema=normcore.schema.json
    """
    from normcore.config.json_schema import schema

    options.print_json(schema(options.load_plugins(plugins)))

"""`llm-api models`: what the service serves, and how far its workers are."""

import click

from app.cli.client import Client
from app.cli.output import json_option, write_json, write_table
from app.cli.service_options import service_options


@click.command
@json_option
@service_options
def models(client: Client, as_json: bool) -> None:
    """List the model of the service with its aliases and LoRA adapters, and the state of its workers."""
    page = client.get("/v1/models")
    if as_json:
        write_json(page)
        return
    write_table(
        ["NAME", "STATE", "#PROGRESS", "#CONTEXT", "FAMILY", "ADAPTER OF", "~DETAIL"],
        (
            (
                model["id"],
                model["state"],
                None if model["progress"] is None else f"{model['progress']:.0%}",
                model["context_tokens"],
                model["family"],
                model["parent"],
                model["detail"],
            )
            for model in page["data"]
        ),
    )

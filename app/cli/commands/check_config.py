"""`llm-api check-config`: check the configuration as API and worker do, and start nothing."""

import click

from app.cli.worker_check import check_by_worker
from app.config.loader import load_config


@click.command
def check_config() -> None:
    """Check the configuration and start nothing.

    Where a worker is installed this includes what only a worker can check: setup_params, model_params and whether the
    family is installed.
    """
    config = load_config()
    warnings = check_by_worker()
    for line in warnings or ():
        click.echo(line, err=True)
    rest = "; setup_params and model_params were not checked, as no worker is installed" if warnings is None else ""
    click.echo(f"the configuration is valid: model {config.model_name} of family {config.model_family}{rest}")

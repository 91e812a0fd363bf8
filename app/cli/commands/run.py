"""`llm-api run`: the API, one worker and, unless `redis_url` names a Redis, a Valkey, until Ctrl-C."""

import os
import threading

import click

from app.cli.announce import announce
from app.cli.port_check import check_port
from app.cli.preparation import refuse_if_used, sole_use_of, valkey_binary
from app.cli.programs import programs
from app.cli.redis_address import embedded_redis_url
from app.cli.supervisor import Supervisor, say
from app.config.addresses import service_url
from app.config.environment import variables_of_others
from app.config.loader import load_config
from app.config.variables import variable_name


@click.command
@click.pass_context
def run(context: click.Context) -> None:
    """Start everything on this machine: the API, one worker and, unless redis_url names a Redis, a Valkey.

    A program that dies is started again. Ctrl-C stops all of them, and a second one at once. So does a program that
    reports a fault of the configuration or the model: exit status 78.
    """
    config = load_config()
    refuse_if_used(config.data_dir)
    check_port(config.server.host, config.server.port)
    valkey = None if config.redis_url else valkey_binary()
    if valkey:
        os.environ[variable_name("redis_url")] = embedded_redis_url(config)
    with sole_use_of(config.data_dir, service_url(config.server.host, config.server.port)):  # from here on it writes
        for name in variables_of_others(os.environ):
            say(f"{name} is for Docker or Kubernetes and has no effect here; docs/configuration.md lists what has")
        os.environ["PYTHONUNBUFFERED"] = "1"  # the programs write into pipes, a terminal reads them
        supervisor = Supervisor(programs(config, valkey))
        threading.Thread(target=announce, args=(config, supervisor.stopping), daemon=True).start()
        status = supervisor.run()
    context.exit(status)

"""Where Redis is for commands beside `llm-api run`: at `redis_url`, or the embedded Valkey of the data folder."""

import os
from dataclasses import replace
from urllib.parse import quote

from app.cli.programs import valkey_socket
from app.config.settings import Config
from app.config.variables import variable_name


def use_redis_of_run(config: Config) -> Config:
    """Return the configuration with an address of Redis, if there is one, and name it to programs that are started."""
    if config.redis_url is not None or not valkey_socket(config.data_dir).is_socket():
        return config
    url = embedded_redis_url(config)
    os.environ[variable_name("redis_url")] = url
    return replace(config, redis_url=url)


def embedded_redis_url(config: Config) -> str:
    """Return the address of the Valkey that `llm-api run` starts. Raises ConfigError if its path is too long."""
    return f"unix://{quote(str(valkey_socket(config.data_dir)))}"

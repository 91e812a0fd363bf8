"""Loads and unloads LoRA adapters on all workers of the model, while they run."""

import time

from app.config.adapters import configured_adapters, is_name_of_model
from app.config.settings import Config
from app.errors import InvalidRequest, ModelNotFound, NotEnabled, WaitTimeout
from app.jobs.adapter_registry import LOAD_SECONDS, AdapterRegistry
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import WorkerInfo, WorkerState, connected_workers, no_worker, read_workers

_POLL_SECONDS = 0.05
_OF_CONFIGURATION = "is of model_params.loras in the configuration, and stays as it is"


class AdapterLoading:
    """registry: None where `adapters.runtime_loading` is off."""

    def __init__(self, config: Config, client: RedisClient, registry: AdapterRegistry | None) -> None:
        self._config = config
        self._configured = configured_adapters(config)
        self._redis = client
        self._enabled_registry = registry

    def load(self, name: str, source: str, *, replaces: bool) -> None:
        """Load an adapter. Returns when every worker that runs has it; where one has not, none keeps it.

        Args:
            source: a path in `models_dir`, or a repository.
            replaces: an adapter of this name serves requests until this one is loaded.

        Raises:
            NotEnabled, NoWorker
            InvalidRequest: the name is taken, or a worker cannot load it.
            WaitTimeout: the workers were not done in time.
        """
        registry = self._registry
        self._reject_taken(name)
        version = registry.add(name, source, replaces=replaces)
        try:
            self._wait_until_loaded(name, version)
            registry.serve(name, version, replaces=replaces)
        except BaseException:
            registry.remove(name, version)
            raise

    def unload(self, name: str) -> None:
        """Unload an adapter. Requests that run with it keep it until they end. Raises NotEnabled, ModelNotFound."""
        registry = self._registry
        if name in self._configured:
            raise _invalid("lora_name", f"The lora adapter {name!r} {_OF_CONFIGURATION}.")
        adapter = registry.find(name)
        if adapter is None:
            reason = f"The lora adapter {name!r} cannot be found."  # vLLM's words
            raise ModelNotFound(reason, errors={"lora_name": [reason]})
        registry.remove(name, adapter.version)

    @property
    def _registry(self) -> AdapterRegistry:
        if self._enabled_registry is None:
            raise NotEnabled(
                "adapters are loaded at run time only where the configuration has adapters.runtime_loading"
            )
        return self._enabled_registry

    def _reject_taken(self, name: str) -> None:
        if is_name_of_model(self._config, name):
            raise _invalid("lora_name", f"The model has the name {name!r}; give the adapter another.")
        if name in self._configured:
            raise _invalid("lora_name", f"The lora adapter {name!r} has already been loaded: it {_OF_CONFIGURATION}.")

    def _wait_until_loaded(self, name: str, version: str) -> None:
        deadline = time.monotonic() + LOAD_SECONDS
        while not self._is_loaded(version):
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the workers did not load the adapter {name!r} within {LOAD_SECONDS} s; try again")
            time.sleep(_POLL_SECONDS)

    def _is_loaded(self, version: str) -> bool:
        """Return whether every ready worker has it, and there is one. Raises InvalidRequest, NoWorker."""
        workers = self._workers()
        for worker in workers:
            if reason := worker.adapters.get(version):
                raise _invalid("lora_path", reason)
        ready = [worker for worker in workers if worker.state is WorkerState.READY]  # the others load it later
        if not workers:
            raise no_worker(self._redis, self._config.model_name)
        return bool(ready) and all(version in worker.adapters for worker in ready)

    def _workers(self) -> list[WorkerInfo]:
        states = (WorkerState.LOADING, WorkerState.READY)
        known = [one for one in read_workers(self._redis) if one.model == self._config.model_name]
        return connected_workers(self._redis, [one for one in known if one.state in states])


def _invalid(field: str, reason: str) -> InvalidRequest:
    return InvalidRequest(reason, errors={field: [reason]})

"""Which LoRA adapters a request chooses: by the name of its model, or by its `lora`.

An API key may be limited to some names. To such a key every other name is one that does not exist: no error and no list
shows it.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from app.api.schemas.adapters import AdapterChoice
from app.config.adapters import Adapter, configured_adapters
from app.config.nearest_name import nearest_name
from app.config.settings import DEFAULT_MODEL, Config
from app.errors import InvalidRequest, ModelNotFound
from app.jobs.adapter_registry import AdapterRegistry, RegisteredAdapter
from app.jobs.job import AdapterUse

_SHOWN = 100  # characters of a name that a client sent
_MOST_NAMES = 8


class Adapters:
    """The adapters of the served model. registry: of those loaded at run time; None: there are none."""

    def __init__(self, config: Config, registry: AdapterRegistry | None = None) -> None:
        self._config = config
        self._configured = configured_adapters(config)
        self._registry = registry

    def all(self, models: Sequence[str] = ()) -> list[Adapter]:
        """Return the adapters in their order: an adapter's position is its `id` in llama-server's `lora`.

        Args:
            models: of the API key: names that it may ask for, or patterns of names; none: all. Here and below.
        """
        served = () if self._registry is None else self._registry.served()
        every = [*self._configured.values(), *map(_loaded, served)]
        return [adapter for adapter in every if _may_ask(models, adapter.name)]

    def _find(self, name: str) -> Adapter | None:
        configured = self._configured.get(name)
        if configured is not None or self._registry is None:
            return configured
        served = self._registry.find(name)
        return None if served is None else _loaded(served)

    def names_of_model(self, models: Sequence[str] = ()) -> list[str]:
        """Return the names of the model itself, patterns among them."""
        names = [self._config.model_name, *self._config.model_aliases]
        return [name for name in names if _may_ask(models, name, self._config.model_name)]

    def of_model(self, asked: str | None, models: Sequence[str] = ()) -> Adapter | None:
        """Return the adapter whose name a request gives as its model; None: the model itself, or no name.

        Raises:
            ModelNotFound: neither a name of the model nor of an adapter, or not one for this API key.
        """
        adapter = self._meant(asked, models)
        served = self._config.model_name
        if adapter is None and not _may_ask(models, asked or served, served):
            raise self._not_found(asked or served, models)
        return adapter

    def chosen(
        self, model: str | None, choices: Sequence[AdapterChoice], field: str, models: Sequence[str] = ()
    ) -> tuple[AdapterUse, ...]:
        """Return what a request is computed with: equal choices give equal values.

        Args:
            field: the path by which `choices` were sent.

        Raises:
            ModelNotFound: see `of_model`. A key needs no right to the model itself to ask for an adapter of it.
            InvalidRequest: an adapter that is not there, or two ways to choose.
        """
        adapter = self._meant(model, models)
        if adapter is not None and choices:
            raise _invalid(field, f"The model {adapter.name!r} is an adapter; leave {field} out, or name the model.")
        uses = [] if adapter is None else [_use(adapter, None)]
        for choice in choices:
            uses.append(_use(self._named(choice.id, field, models), choice.scale))
        if len({use.name for use in uses}) < len(uses):
            raise _invalid(field, "Names an adapter twice; name each once.")
        used = tuple(sorted((use for use in uses if use.scale), key=lambda use: use.name))
        if adapter is None and not used:
            self.of_model(model, models)  # the model itself
        return used

    def _meant(self, asked: str | None, models: Sequence[str]) -> Adapter | None:
        """Return the adapter of this name, None for every name of the model itself. Raises ModelNotFound."""
        if not asked or asked in (self._config.model_name, DEFAULT_MODEL):
            return None
        adapter = self._find(asked)
        if adapter is None and _matches(self._config.model_aliases, asked):
            return None
        if adapter is None or not _may_ask(models, adapter.name):
            raise self._not_found(asked, models)
        return adapter

    def _named(self, wanted: str | int, field: str, models: Sequence[str]) -> Adapter:
        if isinstance(wanted, str):
            adapter = self._find(wanted)
        else:
            listed = self.all(models)
            adapter = listed[wanted] if wanted < len(listed) else None
        if adapter is None or not _may_ask(models, adapter.name):
            raise _invalid(field, _missing(wanted, [one.name for one in self.all(models)]))
        return adapter

    def _not_found(self, asked: str, models: Sequence[str]) -> ModelNotFound:
        names = [*self.names_of_model(models), *(one.name for one in self.all(models))]
        if models:
            reason = (
                f"the model {asked[:_SHOWN]!r} does not exist for this API key, which may ask for {_listed(models)}"
            )
        else:
            reason = f"the model {asked[:_SHOWN]!r} does not exist here: {self._config.model_name!r} is served"
        if near := nearest_name(asked, names):
            reason += f"; did you mean {near!r}?"
        return ModelNotFound(reason, errors={"model": [reason]})


def _may_ask(models: Sequence[str], *names: str) -> bool:
    """Return whether an API key may ask for what has these names. models: see `Adapters.all`."""
    return not models or _matches(models, *names)


def _matches(patterns: Iterable[str], *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _loaded(adapter: RegisteredAdapter) -> Adapter:
    return Adapter(name=adapter.name, version=adapter.version)


def _use(adapter: Adapter, scale: float | None) -> AdapterUse:
    return AdapterUse(name=adapter.name, scale=adapter.scale if scale is None else scale, version=adapter.version)


def _missing(wanted: str | int, names: Sequence[str]) -> str:
    if not names:
        return "This server has no adapters; leave it out."
    near = nearest_name(wanted, names) if isinstance(wanted, str) else None
    advice = f"did you mean {near!r}?" if near else f"there are {_listed(names)}."
    return f"There is no adapter {wanted[:_SHOWN] if isinstance(wanted, str) else wanted!r}: {advice}"


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:_MOST_NAMES]) + (
        f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    )


def _invalid(field: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {reason}", errors={field: [reason]})

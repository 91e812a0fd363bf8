"""Which LoRA adapters a request chooses: by the name of its model, or by its `lora`."""

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

    def all(self) -> list[Adapter]:
        """Return the adapters in their order: an adapter's position is its `id` in llama-server's `lora`."""
        served = () if self._registry is None else self._registry.served()
        return [*self._configured.values(), *map(_loaded, served)]

    def find(self, name: str) -> Adapter | None:
        configured = self._configured.get(name)
        if configured is not None or self._registry is None:
            return configured
        served = self._registry.find(name)
        return None if served is None else _loaded(served)

    def of_model(self, asked: str | None) -> Adapter | None:
        """Return the adapter whose name a request gives as its model; None: the model itself, or no name.

        Raises:
            ModelNotFound: neither a name of the model nor of an adapter.
        """
        config = self._config
        if not asked or asked in (config.model_name, DEFAULT_MODEL):
            return None
        adapter = self.find(asked)
        if adapter is not None or any(fnmatchcase(asked, name) for name in config.model_aliases):
            return adapter
        names = [config.model_name, *config.model_aliases, *(one.name for one in self.all())]
        reason = f"the model {asked[:_SHOWN]!r} does not exist here: {config.model_name!r} is served"
        if near := nearest_name(asked, names):
            reason += f"; did you mean {near!r}?"
        raise ModelNotFound(reason, errors={"model": [reason]})

    def chosen(self, model: str | None, choices: Sequence[AdapterChoice], field: str) -> tuple[AdapterUse, ...]:
        """Return what a request is computed with: equal choices give equal values.

        Args:
            field: the path by which `choices` were sent.

        Raises:
            ModelNotFound: see `of_model`.
            InvalidRequest: an adapter that is not there, or two ways to choose.
        """
        adapter = self.of_model(model)
        if adapter is not None and choices:
            raise _invalid(field, f"The model {adapter.name!r} is an adapter; leave {field} out, or name the model.")
        uses = [] if adapter is None else [_use(adapter, None)]
        for choice in choices:
            uses.append(_use(self._named(choice.id, field), choice.scale))
        if len({use.name for use in uses}) < len(uses):
            raise _invalid(field, "Names an adapter twice; name each once.")
        return tuple(sorted((use for use in uses if use.scale), key=lambda use: use.name))

    def _named(self, wanted: str | int, field: str) -> Adapter:
        adapters = self.all()
        at_position = adapters[wanted] if isinstance(wanted, int) and wanted < len(adapters) else None
        adapter = self.find(wanted) if isinstance(wanted, str) else at_position
        if adapter is None:
            raise _invalid(field, _missing(wanted, [one.name for one in adapters]))
        return adapter


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

"""gunicorn's log, in the form of ours: its lines go where those of the service go."""

from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]


class GunicornLog(Logger):  # type: ignore[misc]
    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

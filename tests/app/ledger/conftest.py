"""A queue whose jobs end in every way."""

from tests.app.jobs.conftest import scene

__all__ = ["scene"]

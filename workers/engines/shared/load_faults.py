"""What goes wrong while a model is loaded, as one line for the operator."""

import contextlib
from collections.abc import Iterator

from app.errors import ModelUnavailable, StartupError

_REASON_CHARACTERS = 300


@contextlib.contextmanager
def load_faults_explained(model: str) -> Iterator[None]:
    """Turn what a model makes an engine raise into `ModelUnavailable`.

    Faults of the machine stay as they are: memory and disks may do better the next time. `workers.jobs.load_attempts`
    counts them.

    Args:
        model: the name of the model in the line.
    """
    try:
        yield
    except (StartupError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:_REASON_CHARACTERS]
        raise ModelUnavailable(
            f"{model} cannot be used ({type(error).__name__}: {reason}): download it again, or use another one"
        ) from error

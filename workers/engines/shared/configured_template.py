"""`model_params.chat_template`: the operator's own template, in the place of the model's."""

from pathlib import Path

from app.errors import ConfigError
from workers.engines.shared.child_process import ChildFailed, ChildProcess
from workers.engines.shared.named_templates import NAMES, template_called
from workers.engines.shared.template_renderer import LIMITS
from workers.suggestions import did_you_mean

KEY = "model_params.chat_template"
RENDERER = "workers.engines.shared.template_renderer"


def configured_template(value: str) -> str:
    """Return the template of `model_params.chat_template`, which holds it, its name or the path of its file.

    Raises:
        ConfigError: the file cannot be read, or holds no template.
    """
    if named := template_called(value):
        return named.source
    if "{" not in value:
        try:
            value = Path(value).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{KEY}: {value} cannot be read: give the path of a file, the template itself, or a name "
                f"({did_you_mean(value, NAMES)})"
            ) from error
    try:
        ChildProcess(RENDERER, LIMITS, {"sources": [value]}).close()
    except ChildFailed as error:
        raise ConfigError(f"{KEY} is no Jinja template: {error}") from error
    return value

"""What `run` prints once the service is ready."""

from app.cli.announce import ready_line
from app.config.settings import AuthConfig, Config, ServerConfig


def test_the_ready_line_can_be_pasted_and_shows_no_key() -> None:
    config = Config(model_name="m", server=ServerConfig(port=80), auth=AuthConfig(api_keys=("hunter2",)))
    line = ready_line(config)
    assert line.startswith("ready: http://localhost:80 ")
    assert "curl http://localhost:80/generate -H 'Authorization: Bearer YOUR_API_KEY'" in line
    assert "hunter2" not in line

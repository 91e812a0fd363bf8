"""The command line, `python -m app.cli`: start everything on this machine, or check the configuration."""

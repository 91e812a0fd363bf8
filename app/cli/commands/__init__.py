"""The commands, one module for each command or group. `app.cli.program` lists them and loads the one that is used."""

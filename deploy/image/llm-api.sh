#!/bin/sh
# `llm-api`, the command line, for the Python beside it: `make` puts it into .venv/bin of a checkout, the Dockerfile into
# /usr/local/bin of the images, whose code is in /llm-api. It works in any folder.
bin=$(dirname "$(readlink -f "$0")")
code=$(dirname "$(dirname "$bin")")
[ -d "$code/app/cli" ] || code=/llm-api
export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"
exec "$bin/python" -P -c 'from app.cli.program import llm_api; llm_api(prog_name="llm-api")' "$@"

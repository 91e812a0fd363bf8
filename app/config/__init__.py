"""The configuration: read once from `config.yaml` and the environment, validated, then frozen.

Import rules: this package imports the standard library, yaml, marshmallow and `app.errors`.
"""

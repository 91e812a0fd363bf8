"""The configuration: read once from `config.yaml` and the environment, validated, then frozen.

Law of this package: it imports the standard library, yaml, marshmallow and `app.errors`.
"""

"""The bodies and queries of the HTTP API: marshmallow schemas, which validate and document them at once."""

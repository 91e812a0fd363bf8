"""The bodies, queries and answers of the HTTP API: marshmallow schemas, which validate and document them at once."""

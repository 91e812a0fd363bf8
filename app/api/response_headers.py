"""Headers of every response, which tell browsers and proxies what not to do with it."""

from flask import Flask, Response

HEADERS = {
    "Cache-Control": "no-store",  # a response holds what a key may read
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # a path holds the id of a job
    "X-Content-Type-Options": "nosniff",  # a text that a model wrote is no page
}


def register(app: Flask) -> None:
    app.after_request(_complete)


def _complete(response: Response) -> Response:
    present = {name.lower() for name in response.headers.keys()}  # noqa: SIM118 - they are no dict
    response.headers.extend([(name, value) for name, value in HEADERS.items() if name.lower() not in present])
    return response

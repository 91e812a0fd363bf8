"""How the API is served: the WSGI entry point, gunicorn's settings, and shutdown."""

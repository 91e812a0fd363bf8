"""Build every image, bring every compose file up, and check what they promise: `make images`.

Needs Docker 23 or newer with Compose 2.24 or newer, and of Python the standard library alone. No registry is asked
where the engine holds the base images.
"""

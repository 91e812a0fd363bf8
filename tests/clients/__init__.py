"""Programs written for OpenAI's API, as their users write them, against the running service: `make test-clients`.

Rule of this folder: one folder for each client, with the versions of all its packages and one program. The program runs
in an environment of its own, which has neither the product nor pytest, and plays scenes: `chat`, `stream`, `tools`
with a second turn, `structured_output`, `embeddings`, and more where the client can do more. `shared/` is the frame of
the programs, `original/` has the clients written for the original LLM API.
"""

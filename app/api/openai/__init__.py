"""OpenAI's API in terms of jobs: requests become jobs, their outcomes become OpenAI's objects and chunks.

Law of this room: it knows jobs, events and schemas; the routes know Flask's side of it.
"""

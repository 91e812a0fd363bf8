"""Live data for the page: what Redis holds is read once per period and process, and shared by all that watch.

Nothing runs while no one watches. A stream sends what has changed since its last event. No Flask below `stream`.
"""

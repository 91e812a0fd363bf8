"""`make bench`: how fast a running service is, and what a bare loop over the same model would do on the same machine.

Figures are medians of rounds; where two things are compared, their rounds alternate. Nothing here asserts: machines are
shared, and a benchmark that fails at random is soon ignored.
"""

"""``millstream demo``: real data, real questions, and answers that are checked.

A client program, not a part of the node: it starts ``millstream serve`` as anybody would and talks
to it over HTTP. The flights come from the public data set nycflights13 (data/SOURCE.txt).
"""

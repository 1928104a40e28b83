"""Change streams: shards, their lineage, iterators and records, all projections of the log.

A shard is a (stream label, log, LSN range) read in order; nothing is written a second time for it.
Pure: ``actors/streams.py`` reads the logs.
"""

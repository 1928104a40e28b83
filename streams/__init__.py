"""Change streams: shards, their lineage, iterators and records, all projections of the log.

Nothing lives here yet. A shard will be a (stream label, log, LSN range) read in order; nothing is
written a second time for it.
"""

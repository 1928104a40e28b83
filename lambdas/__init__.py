"""Triggers: which records a handler gets, in which batches, and what happens when it fails.

The policy of event source mappings, and how handlers run; the pollers that carry it out are
actors. Worker processes import this package, so it stays light.
"""

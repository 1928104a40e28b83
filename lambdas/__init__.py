"""Triggers: which records a handler gets, in which batches, and what happens when it fails.

Nothing lives here yet. It will hold the policy of event source mappings; the pollers that carry
it out are actors.
"""

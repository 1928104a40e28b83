"""Triggers: which records a handler gets, in which batches, and what happens when it fails.

``settings`` holds the parameters of event source mappings and their bounds, ``patterns`` the
filters. The pollers that carry the policy out are actors.
"""

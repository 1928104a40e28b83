"""Policy of regions: groups, the link's protocol, what is sent and what is held.

Pure, except ``link``'s use of a cryptographic hash. What moves it is in ``actors/``.
"""

"""The machines under every table: partition state, the log's engines, the tree, indexes.

Pure and synchronous: no clock, no randomness, no files of its own but through ``host`` and, for
LMDB and LevelDB, behind an interface with an in-memory twin.
"""

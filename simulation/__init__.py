"""A world from a seed: real nodes on simulated machines, workloads, faults, and checkers.

Everything that could differ between two runs is drawn from the seed, so a failure found once is
found again by its number. The rest of millstream does not know this room.
"""

"""Benchmarks: nothing here is shipped, timed in CI, or imported by the node.

``python -m millstream.bench`` (``make bench``) compares servers under YCSB-like workloads;
``bench.memory``, ``bench.scale`` and ``bench.engine`` each answer one question about ours. All
judge by CPU per operation and by ratios within one run: machines are shared and clocks differ.
"""

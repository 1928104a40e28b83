"""Programs for those who work on millstream: nothing here is shipped.

``crash`` kills a real server under load, ``powercut`` cuts its power on a model of the disk,
``damage`` flips bits and cuts files. Each takes its randomness from ``--seed`` and says it.
"""

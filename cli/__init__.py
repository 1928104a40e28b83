"""The command line: ``millstream serve``.

A thin program round the node: it reads arguments and the configuration file, sets logging up and
translates failures into one line and an exit code (2: the settings are wrong; 1: it could not
start). Modules are imported when their command runs, since starting
must not take longer than a blink.
"""

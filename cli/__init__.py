"""The command line: ``millstream serve``, ``millstream demo``.

A thin program round the node: it reads arguments and the configuration file, sets logging up and
translates failures into one line and an exit code (2: the settings are wrong; 1: it could not
start, or a demo's verdict was false). Modules are imported when their command runs, since starting
must not take longer than a blink.
"""

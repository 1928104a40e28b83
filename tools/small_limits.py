"""``millstream`` with small limits, so that what is rare in a short run happens all the time.

``python -m millstream.tools.small_limits serve ...`` is the ordinary command line; segments roll
after 256 KB instead of 64 MB, LevelDB changes its own log after 128 KB, a flush comes with every
256 KB of rows, streams' shards roll over after a second. Limits are constants that modules copy
when they are imported, so importing this module must come before the first of them.
"""

from __future__ import annotations

import sys

from .. import limits

limits.LOG_SEGMENT_BYTES = 256 * 1024
limits.LOG_LEVELDB_WRITE_BUFFER_BYTES = 128 * 1024
limits.MEMTABLE_BYTES_MIN = 64 * 1024
limits.STREAM_SHARD_SECONDS_MIN = 1

MEMTABLE_BYTES = 256 * 1024
#: What a server with small limits is told besides.
ARGUMENTS = ("--memtable-bytes", str(MEMTABLE_BYTES), "--stream-shard-seconds", "1")

if __name__ == "__main__":
    from ..__main__ import main

    sys.exit(main())

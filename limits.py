"""Every limit that millstream enforces, with its origin.

``D`` marks DynamoDB's documented limit, ``S`` our own sketch of the cost. Rooms append their block.
"""

from __future__ import annotations

# Items and values (D: "Service, account, and table quotas in Amazon DynamoDB").
ITEM_SIZE_BYTES_MAX = 409_600
PARTITION_KEY_BYTES_MAX = 2048
SORT_KEY_BYTES_MAX = 1024
NESTING_LEVELS_MAX = 32
NUMBER_DIGITS_MAX = 38
ATTRIBUTE_NAME_BYTES_MAX = 65_535
KEY_ATTRIBUTE_NAME_BYTES_MAX = 255

# Expressions (D).
EXPRESSION_BYTES_MAX = 4096
EXPRESSION_OPERATORS_MAX = 300
IN_OPERANDS_MAX = 100
PLACEHOLDER_BYTES_MAX = 255
SUBSTITUTIONS_BYTES_MAX = 2 * 1024 * 1024

# Requests (D).
PAGE_BYTES_MAX = 1024 * 1024
CLIENT_TOKEN_CHARACTERS_MAX = 36
BATCH_GET_KEYS_MAX = 100
BATCH_WRITE_REQUESTS_MAX = 25
BATCH_BYTES_MAX = 16 * 1024 * 1024
SCAN_SEGMENTS_MAX = 1_000_000
LIST_TABLES_MAX = 100
TRANSACTION_ACTIONS_MAX = 100
TRANSACTION_BYTES_MAX = 4 * 1024 * 1024
TOKEN_MILLISECONDS_MAX = 10 * 60 * 1000

# Numbers (D: "Supported data types", Number: 1E-130 to 9.99..E+125): the power of ten of the first
# digit.
NUMBER_MAGNITUDE_MAX = 125
NUMBER_MAGNITUDE_MIN = -130

# The log (S). JSON grows an item at most sevenfold (a list of NULLs: 2 bytes counted, 14 written),
# so one item is at most 2.9 MB and the new images of a whole transaction at most 30 MB. An entry
# holds one batch of one partition; 64 MiB leaves room for that transaction, keys and headers.
LOG_ENTRY_BYTES_MAX = 64 * 1024 * 1024
# LevelDB's memory: two write buffers and the block cache. The log is read near its tail.
LOG_LEVELDB_WRITE_BUFFER_BYTES = 4 * 1024 * 1024
LOG_LEVELDB_CACHE_BYTES = 8 * 1024 * 1024
# One chunk of deletions when a log is trimmed or deleted, so that a batch stays small.
LOG_DELETE_CHUNK_ENTRIES = 1000
# What one step of healing a copy of the log moves, between two rounds of commits.
LOG_HEAL_STEP_BYTES = 1024 * 1024
# One segment file: large enough that rolling is rare, small enough that trimming frees soon and
# that the search for frames behind a torn one, at every open, takes a few milliseconds.
LOG_SEGMENT_BYTES = 16 * 1024 * 1024

# Settings (S: beyond these a value is a slip of the pen, not a wish).
PARTITIONS_PER_TABLE_MAX = 256
LOG_DIRECTORIES_MAX = 7
MEMTABLE_BYTES_MIN = 1024 * 1024
# Of each layer. LMDB keeps the pages that a flush touches in memory until it commits: of a large
# tree four times the rows' bytes. 8 MB keeps a node that is loaded at full speed below 150 MB.
MEMTABLE_BYTES_DEFAULT = 8 * 1024 * 1024
MEMTABLE_BYTES_MAX = 4 * 1024 * 1024 * 1024
CONNECTIONS_SETTING_MAX = 65_535

# HTTP (D: 16 MB is DynamoDB's largest request; S: everything else).
REQUEST_BODY_BYTES_MAX = 16 * 1024 * 1024 + 64 * 1024
HTTP_HEAD_BYTES_MAX = 32 * 1024
HTTP_HEADERS_MAX = 100
# Of one connection: operations and lengths of bodies make heads of a few sizes. 2 KB each.
HTTP_TEMPLATES_MAX = 8
HTTP_CHUNK_LINE_BYTES_MAX = 256
HTTP_TRAILER_BYTES_MAX = 8 * 1024
# What a chunked body above the usual limit may grow before its size is judged again.
JUDGED_STEP_BYTES = 64 * 1024
COMPRESSION_BYTES_MIN = 2048
CONNECTIONS_MAX = 4096
BYTES_IN_FLIGHT_MAX = 256 * 1024 * 1024
RECEIVE_BYTES = 64 * 1024
REQUESTS_BEFORE_CHECKPOINT_MAX = 16
IDLE_SECONDS_MAX = 300
HEAD_SECONDS_MAX = 15
TRANSFER_SECONDS_MIN = 30
TRANSFER_BYTES_PER_SECOND_MIN = 64 * 1024
LINGER_SECONDS_MAX = 5
LINGER_BYTES_MAX = 64 * 1024 * 1024
SHUTDOWN_SECONDS_MAX = 10

# Signatures (D: 15 minutes of clock skew, 7 days for a presigned request; S: the caches).
CLOCK_SKEW_SECONDS_MAX = 15 * 60
PRESIGNED_SECONDS_MAX = 7 * 24 * 3600
SIGNING_SCOPES_CACHED_MAX = 1024
SIGNING_SCOPE_BYTES_MAX = 2048
ACCESS_KEY_CHARACTERS_MAX = 128

# Partition batches (S: one entry is one append; big enough to share a sync, small enough to keep
# the largest entry, one more item of worst-case encoding on top, within LOG_ENTRY_BYTES_MAX).
BATCH_PAYLOAD_BYTES = 1024 * 1024
BATCH_RECORDS_MAX = 4096
# Commands waiting for one partition (S: beyond it, waiting longer than a second is certain).
MAILBOX_MESSAGES_MAX = 4096
# How often a partition looks for more writers before it closes an entry (S: a look costs 4 us, a
# round of the log 200 us and more).
GATHER_LOOKS = 3
# One read of the log while a partition recovers (S: a few hundred entries at a time).
RECOVERY_READ_BYTES = 1024 * 1024

# The first look at a request (api/validation). D: at most ten violations are told. S: an echo of
# the offending value is cut beyond what a person reads; nesting is looked at no deeper than this,
# which is beyond NESTING_LEVELS_MAX, so that a deeper value is refused for its depth.
REQUEST_VIOLATIONS_MAX = 10
REQUEST_ECHO_CHARACTERS_MAX = 8192
REQUEST_NESTING_MAX = 40

# The tree (S). LMDB's own key limit of 511 bytes does not show: long keys are layered. The longest
# key that we build is a GSI row's: 4 + 4 index key attributes and the table's key, escaped.
TREE_KEY_BYTES_MAX = 65_536
TREE_MAP_BYTES = 1 << 42
TREE_MAP_BYTES_MIN = 1 << 28
TREE_READERS_MAX = 126
TREE_FAULTS_REPORTED_MAX = 100
MEMTABLE_ROW_OVERHEAD_BYTES = 200

# Index builders (S: a chunk is one synchronous slice and one log entry; the lag bound is seconds of
# writing at full speed, so that an index that cannot keep up stops its table soon).
INDEX_CHUNK_ROWS = 250
INDEX_CHUNK_BYTES = 512 * 1024
INDEX_READ_BYTES = 512 * 1024
INDEX_LAG_ENTRIES_MAX = 10_000
# Who met a passing fault (a builder, a schema change, a reader of the log) asks again (S: longer
# than a reopening).
INDEX_RETRY_SECONDS = 0.05
LOG_RETRY_SECONDS = 0.05
SCHEMA_RETRY_SECONDS = 0.05
# How long an answer to CreateTable or DeleteTable waits for the work to be done.
SCHEMA_GRACE_SECONDS = 1.0

# The flusher (S: a dropped tree goes in steps of about 10 ms; a full disk is asked again at ease).
DROP_STEP_ROWS = 5_000
STORAGE_RETRY_SECONDS = 1.0

# Slices of a long read between two checkpoints (S: about 2 ms each; a row costs about 1 us when its
# bytes are only passed on and 10 us with 1 KB decoded, filtered and projected).
SLICE_ROWS_MAX = 1024
SLICE_DECODED_ROWS_MAX = 128
SLICE_DECODED_BYTES_MAX = 256 * 1024

# Capacity units (D: "DynamoDB read and write operations").
READ_UNIT_BYTES = 4096
WRITE_UNIT_BYTES = 1024
TRANSACTIONAL_UNITS_FACTOR = 2

# Versions (S: 48 bits of milliseconds last until the year 10889; 16 bits count 65,536 versions
# within a millisecond, above which a clock runs ahead by carrying).
HLC_COUNTER_BITS = 16
HLC_BITS = 64
# How far a remote region's version may be ahead of this node's clock before it is held back (S:
# well above what NTP leaves between machines, far below what a user would notice as lost order).
REMOTE_CLOCK_SKEW_MS_MAX = 60_000

# Tables and tags (D: "Service, account, and table quotas in Amazon DynamoDB"; units_max is what
# DynamoDB itself calls out of bounds).
LOCAL_INDEXES_MAX = 5
GLOBAL_INDEXES_MAX = 20
INDEX_HASH_ATTRIBUTES_MAX = 4
INDEX_RANGE_ATTRIBUTES_MAX = 4
PROJECTED_ATTRIBUTES_MAX = 100
CAPACITY_UNITS_MAX = 1_000_000_000_000
DECREASES_A_DAY_UNCONDITIONAL = 4
DECREASE_INTERVAL_SECONDS = 3600
TAGS_MAX = 50
TAG_KEY_CHARACTERS_MAX = 128
TAG_VALUE_CHARACTERS_MAX = 256
# Global tables (D: the service model, ReplicaSettingsUpdateList; the API reference of
# ListGlobalTables, "the default limit is 100", and who asks for more gets no more here).
REPLICA_SETTINGS_UPDATES_MAX = 50
LIST_GLOBAL_TABLES_MAX = 100

# Event source mappings (D: the Lambda API reference, CreateEventSourceMapping; five filters are the
# default quota of "Lambda event filtering", which AWS raises to ten when asked; S: the path).
MAPPING_BATCH_RECORDS_MAX = 10_000
MAPPING_BATCH_WINDOW_SECONDS_MAX = 300
MAPPING_PARALLELIZATION_MAX = 10
MAPPING_RETRY_ATTEMPTS_MAX = 10_000
MAPPING_RECORD_AGE_SECONDS_MIN = 60
MAPPING_RECORD_AGE_SECONDS_MAX = 604_800
MAPPING_TUMBLING_WINDOW_SECONDS_MAX = 900
MAPPING_FILTERS_MAX = 5
FILTER_PATTERN_CHARACTERS_MAX = 4096
DESTINATION_CHARACTERS_MAX = 350
# Filter patterns. D: EventBridge takes at most a thousand combinations of $or. S: the deepest leaf
# of a record is 68 names down; a thousand values fill a pattern of 4096 characters; matching is
# linear whatever the wildcards, so that their bound only keeps company with EventBridge's.
FILTER_COMBINATIONS_MAX = 1000
FILTER_LEVELS_MAX = 100
FILTER_VALUES_MAX = 1000
FILTER_WILDCARDS_MAX = 100

# DescribeLimits' and DescribeEndpoints' answers (D: the initial quotas of an account).
ENDPOINT_CACHE_MINUTES = 1440
ACCOUNT_CAPACITY_UNITS_MAX = 80_000
TABLE_CAPACITY_UNITS_MAX = 40_000

# Warm throughput of a table that never asked for it (D: "Understanding DynamoDB warm throughput").
WARM_READ_UNITS_INITIAL = 12_000
WARM_WRITE_UNITS_INITIAL = 4_000
# Closing in good order (S: a full memtable flushed to a slow disk; beyond it the log is enough).
CLOSE_SECONDS_MAX = 30.0

# Compiled expressions. S: a list index beyond this cannot be in an item of 400 KB, and DynamoDB's
# own allowable range is that of Java's int. S: a service repeats a few hundred expressions; the
# largest remembered (characters of text, names and placeholders) has a tree of some 60 KB, so that
# the worst client makes us remember 60 MB.
LIST_INDEX_MAX = 2**31 - 1
EXPRESSIONS_CACHED_MAX = 1024
EXPRESSION_CACHED_CHARACTERS_MAX = 8192
# Healing a log copy (S: a step is bounded and shares the writer; the watch costs one look).
HEAL_STEP_SECONDS = 0.02
HEAL_WATCH_SECONDS = 5.0

# Transactions (S: versions kept free below a promise for single writes that go before it, a 64th
# of a millisecond's counter; a coordinator asks again until it knows; tokens are swept in parts).
TRANSACTION_GAP = 1024
TRANSACTION_RETRY_SECONDS = 0.05
TRANSACTION_PAUSE_SECONDS = 0.001
# Attempts at items that another transaction holds (S: some 40 ms in all, ten times what one takes).
TRANSACTION_ATTEMPTS = 6
TRANSACTION_RECOVERY_SECONDS = 1.0
TOKEN_SWEEP_SECONDS = 60.0
TOKEN_SWEEP_ROWS = 2_000

# Streams (D: records are kept for 24 hours, shards roll over about every 4, an iterator is good for
# 15 minutes, a page has 1,000 records or 1 MB, 100 shards or streams are listed at a time; S: an
# iterator names a table of up to 255 characters; a read looks at so much of a log that shows
# nothing before it answers; entries that were read are kept for those who read the same, up to so
# many bytes in all, and a partition's last one, if it has no more than so many; what has expired
# is looked for this often).
STREAM_RETENTION_SECONDS = 24 * 3600
STREAM_RETENTION_SECONDS_MAX = 366 * 24 * 3600
STREAM_SHARD_SECONDS = 4 * 3600
STREAM_SHARD_SECONDS_MIN = 60
ITERATOR_MILLISECONDS_MAX = 15 * 60 * 1000
ITERATOR_CHARACTERS_MAX = 2048
STREAM_PAGE_RECORDS_MAX = 1000
STREAM_PAGE_BYTES_MAX = 1024 * 1024
STREAM_LIST_MAX = 100
STREAM_READ_BYTES = 256 * 1024
STREAM_SCAN_ENTRIES_MAX = 2000
STREAM_CACHE_BYTES = 4 * 1024 * 1024
STREAM_NEWEST_BYTES = 64 * 1024
STREAM_WATCH_SECONDS = 60.0
# An effect's count of the handlers that led to it goes no higher than this (S).
HOPS_MAX = 255
# A handler whose transaction meets others is called again so often before that counts as a failure
# (S); an invoker that cannot start a process is asked again after this long (S).
HANDLER_CONFLICTS_MAX = 50
# What is told of the last failure of a mapping (S).
ERROR_CHARACTERS_MAX = 500
INVOKER_RETRY_SECONDS = 0.5
# Batches that were given up: a destination is asked again after so long, then twice that and so on;
# listed at most for a mapping; the event's text in a table's item, which holds 400 KB in all (S).
DESTINATION_RETRY_SECONDS = 1.0
DESTINATION_RETRY_SECONDS_MAX = 60.0
FAILED_BATCHES_KEPT_MAX = 1000
FAILURE_EVENT_BYTES_MAX = 350_000
# Worker processes of one trigger (S: each costs some 15 MB).
WORKERS_PER_TRIGGER_MAX = 10
# Event source mappings of a node, and streams that are kept of one table (S: each has tasks and a
# row; tests that make and remove a table all day leave a stream each time, kept for a day).
MAPPINGS_MAX = 1000
STREAMS_PER_TABLE_MAX = 10_000
# What a trigger in Python gets unless it says otherwise (D: Lambda's most for both).
HANDLER_TIMEOUT_SECONDS_DEFAULT = 900.0
FUNCTION_MEMORY_MB_DEFAULT = 1024
# Following a table in Python (S): records read at a time, a slice of the rows of a snapshot (one
# moment each, some milliseconds), and the text of a position, which names every shard.
CHANGES_PAGE_RECORDS = 128
SNAPSHOT_SLICE_ROWS = 256
SNAPSHOT_SLICE_BYTES = 256 * 1024
CHANGES_POSITION_CHARACTERS_MAX = 256 * 1024
# A trigger's name is stored with its mapping and told in every log line (S).
TRIGGER_NAME_CHARACTERS_MAX = 512
# Records read between two checkpoints (S: about 2 ms at 10 us each).
STREAM_SLICE_RECORDS = 128

# Bodies beyond this are decoded without the garbage collector (S: below it there are too few
# objects for a full collection).
COLLECTED_BODY_BYTES_MAX = 128 * 1024

# Event source mappings. D: "Using AWS Lambda with Amazon DynamoDB" (6 MB for a synchronous
# invocation, 1 MB of tumbling state), "recursive loop detection" (16). S: the envelope is what an
# event has besides its records and a state; a retry waits from 0.1 s to a minute; a shard holds
# two batches for each lane, never less than one read of the stream, in four payloads' bytes; a
# batch that waits for more closes this long before its first record is too old.
RECURSION_HOPS_MAX = 16
# Records of more hops than this share a batch with their like only (S: half of what is a loop).
MIXED_HOPS_MAX = 8
INVOCATION_PAYLOAD_BYTES_MAX = 6 * 1024 * 1024
INVOCATION_ENVELOPE_BYTES = 1024
WINDOW_STATE_BYTES_MAX = 1024 * 1024
RETRY_BACKOFF_MS_MIN = 100
RETRY_BACKOFF_MS_MAX = 60_000
SHARD_BUFFER_BATCHES = 2
SHARD_BUFFER_RECORDS_MIN = 1000
SHARD_BUFFER_BYTES_MAX = 4 * INVOCATION_PAYLOAD_BYTES_MAX
RECORD_AGE_MARGIN_MS = 5000

# Handlers and their workers. D: a function's answer is at most 6 MB (and a hundred bytes), its init
# phase ten seconds, and Invoke tells the last 4 KB of its log. S: a frame holds an event or an
# answer of 6 MB, the writes of a transaction, or a pickled function with what it closes over.
FUNCTION_ANSWER_BYTES_MAX = 6 * 1024 * 1024 + 100
FUNCTION_INIT_SECONDS_MAX = 10.0
FUNCTION_LOG_TAIL_BYTES = 4096
WORKER_FRAME_BYTES_MAX = 64 * 1024 * 1024
WORKER_RECEIVE_BYTES = 256 * 1024
# S: a warm worker holds some 15 MB; five minutes is about what Lambda keeps one, too.
WORKER_IDLE_SECONDS = 300.0
# S: memory that a worker may map beyond its function's limit. The interpreter takes 10 MB, each
# thread reserves 8 MB of stack whether it uses them or not.
WORKER_MEMORY_RESERVE_BYTES = 64 * 1024 * 1024
# S: what one invocation may print into the node's log, and the longest line of it.
WORKER_LOG_BYTES_MAX = 256 * 1024
WORKER_LOG_LINE_BYTES_MAX = 8 * 1024
# S: a pipe holds 64 KB, and a read of one takes it all.
WORKER_OUTPUT_READS_MAX = 8
# S: an error's message and trace travel with every failed batch.
FAILURE_MESSAGE_CHARACTERS_MAX = 16 * 1024
FAILURE_TRACE_LINES_MAX = 100
# S: threads of one handler, those that ran out of time and could not be stopped included.
HANDLER_THREADS_MAX = 32

# Lambda functions (D: "Lambda quotas" in the Lambda developer guide, and the constraints in the API
# reference; 70,167,211 is what AWS's own refusal of a larger request says: 50 MB as base64 and a
# margin).
FUNCTION_NAME_CHARACTERS_MAX = 64
FUNCTION_NAME_OR_ARN_CHARACTERS_MAX = 140
FUNCTION_HANDLER_CHARACTERS_MAX = 128
FUNCTION_DESCRIPTION_CHARACTERS_MAX = 256
FUNCTION_ROLE_CHARACTERS_MAX = 10_000
FUNCTION_TIMEOUT_SECONDS_MAX = 900
FUNCTION_MEMORY_MB_MIN = 128
FUNCTION_MEMORY_MB_MAX = 10_240
FUNCTION_STORAGE_MB_MIN = 512
FUNCTION_STORAGE_MB_MAX = 10_240
FUNCTION_ENVIRONMENT_BYTES_MAX = 4096
FUNCTION_REQUEST_BYTES_MAX = 70_167_211
PACKAGE_BYTES_MAX = 50 * 1024 * 1024
PACKAGE_UNPACKED_BYTES_MAX = 250 * 1024 * 1024
INVOCATION_EVENT_BYTES_MAX = 1024 * 1024
INVOCATION_CONTEXT_CHARACTERS_MAX = 3583
FUNCTIONS_PAGE_MAX = 50
MAPPINGS_PAGE_MAX = 100
LIST_ITEMS_MAX = 10_000
# S: the largest packages in the wild (numpy, pandas and friends) have some ten thousand files; what
# a file system takes as one name and as a path.
PACKAGE_ENTRIES_MAX = 20_000
PACKAGE_PATH_BYTES_MAX = 1024
PACKAGE_NAME_BYTES_MAX = 255
PACKAGE_READ_BYTES = 64 * 1024
# S: a trace has some 100 characters, with lineage.
TRACE_CHARACTERS_MAX = 512
# S: definitions are kept in memory, some 5 KB each.
FUNCTIONS_MAX = 1000
# Invocations running at once (S: each is a worker process of tens of megabytes; AWS has 1000).
INVOCATIONS_MAX = 32
# Functions that keep idle workers (S: a process each, at least).
INVOKERS_MAX = 32
# Asynchronous invocations (D: two retries, after one and two minutes; S: how many may wait, and
# their payloads' bytes).
EVENT_RETRY_SECONDS = (60.0, 120.0)
EVENTS_WAITING_MAX = 1000
EVENTS_WAITING_BYTES_MAX = 64 * 1024 * 1024

# Links between regions (S, all of them). DynamoDB has fewer than 40 regions; each two have a link
# either way, so that regions are few.
REGIONS_MAX = 32
REGION_BYTES_MAX = 64
# A secret of fewer bytes can be guessed from one recorded handshake.
LINK_SECRET_BYTES_MIN = 16
LINK_SECRET_BYTES_MAX = 1024
# What a stranger may make us read before it has proved anything: a hello has at most 111 bytes with
# the magic before it (half of these are left for later versions'), a proof 35, a refusal 259.
LINK_HANDSHAKE_BYTES_MAX = 1024
LINK_REFUSAL_BYTES_MAX = 256
# A batch or a chunk is closed at about 256 KB, but the one item that closes it has up to 2.9 MB
# (seven times ITEM_SIZE_BYTES_MAX), and a log entry up to 1 MB before such a one: 4.2 MB with keys.
# Twice that, since what comes must be held until its MAC is seen. The arrivals of one message fit
# in a frame even where nothing could be compressed; 64 KB are for keys, cursors and the envelope.
LINK_FRAME_BYTES_MAX = 8 * 1024 * 1024
LINK_ARRIVALS_BYTES_MAX = LINK_FRAME_BYTES_MAX - 64 * 1024
# Below this compression saves less than a packet.
LINK_COMPRESSION_BYTES_MIN = 512
LINK_RECEIVE_BYTES = 256 * 1024
# What a peer that takes nothing is given at a time; each such piece has LINK_STALL_SECONDS.
LINK_SEND_BYTES = 64 * 1024
# Frames that wait because a drill delays them: a second of latency at 16 MB/s.
LINK_DELAYED_BYTES_MAX = 16 * 1024 * 1024
# How often Python looks whether a replica has got where it waits for it.
REPLICA_LOOK_SECONDS = 0.01
# What drills may do: a day of a wrong clock, a minute of latency.
DRILL_SKEW_MS_MAX = 24 * 60 * 60 * 1000
DRILL_LATENCY_SECONDS_MAX = 60.0
# Five round trips round the world and a TLS handshake take two seconds.
LINK_DIAL_SECONDS = 5.0
LINK_HANDSHAKE_SECONDS = 5.0
# A peer that lives sends a pulse a second and reads all the time.
LINK_STALL_SECONDS = 10.0
LINK_SILENCE_SECONDS = 15.0
# One from each other region, and those that it has given up and we have not noticed yet.
LINK_CONNECTIONS_MAX = 4 * REGIONS_MAX
LINK_STRANGERS_MAX = 16

# Between regions (S). A batch takes what gathers within the pace (4 ms: no more than a synced
# commit; 250 batches a second cost a few percent of a core), up to some bytes of log and
# some entries (one slice of 2 ms); what is larger than a part goes in several. So many are on their
# way for each partition; a position without changes is told after so many entries. A stream that
# the other side does not take yet, and a peer that does not answer, are tried again after so long.
# Of what is here in the range of a chunk, so many rows are compared with it at a time; an entry
# with changes from elsewhere, old images included, is closed at about so many bytes. Where a batch
# has had so many changes, the next one waits longer (4,000 writes a second and more: a batch costs
# 0.2 ms, a change 6 us). So many bytes of a log's last entries are kept for those who follow.
REPLICATION_BATCH_BYTES = 256 * 1024
REPLICATION_BATCH_ENTRIES = 256
REPLICATION_PART_BYTES = 1024 * 1024
REPLICATION_CHUNK_BYTES = 256 * 1024
REPLICATION_CHUNK_ROWS = 512
REPLICATION_FILL_ROWS = 2000
REPLICATION_ENTRY_BYTES = 8 * 1024 * 1024
REPLICATION_WINDOW = 4
REPLICATION_PACE_SECONDS = 0.004
REPLICATION_BUSY_CHANGES = 16
REPLICATION_BUSY_FACTOR = 2.5
REPLICATION_NOTE_ENTRIES = 256
FOLLOWED_BYTES_MAX = 1024 * 1024
REPLICATION_REOPEN_SECONDS = 0.5
REPLICATION_HELD_SECONDS = 0.005
REPLICATION_RETRY_SECONDS = 0.1
LINK_RETRY_SECONDS = 0.1
LINK_RETRY_SECONDS_MAX = 5.0
# Signs of life, which also say how far each stream is closed; and how often tombstones that every
# region has passed are looked for, so many rows at a time.
PULSE_SECONDS = 1.0
# Out of turn, for reads that wait for one: at most so often on a link; asked for again so often.
PULSE_WANTED_SECONDS = 0.02
PULSE_WANTED_AGAIN_SECONDS = 0.25
# How far ahead a region's clock is reserved (S: after a crash it may begin so much ahead of the
# wall clock, and wins conflicts for so long; half of it is how often the reservation is written).
CLOCK_RESERVE_SECONDS = 3.0
COLLECT_SECONDS = 10.0
COLLECT_ROWS = 1000
# Streams of one link: partitions of global tables (256 a table at most).
LINK_STREAMS_MAX = 16_384
# The conflicts of global tables (S): so many entries of a log are looked through in one slice of
# some 2 ms, and again after a pause in which more gather; so many rows are put together, since they
# may be as large as items are; how far they were is noted after so many entries, or when nothing
# has come for so long. Of images that do not fit into a row so many attributes are named, in so
# many characters each.
CONFLICTS_READ_ENTRIES = 64
CONFLICTS_PUT_ROWS = 16
CONFLICTS_PACE_SECONDS = 0.05
CONFLICTS_NOTE_ENTRIES = 4096
CONFLICTS_NOTE_SECONDS = 10.0
CONFLICTS_LEFT_OUT_MAX = 20
CONFLICTS_LEFT_OUT_CHARACTERS_MAX = 100
# Groups that a region knows, those that it has left included.
GROUPS_MAX = 10_000

# Levels of consistency (S). A token has two entries a region of at most 25 bytes; who waits holds a
# connection; a count of missing changes is believed for two pulses and a half.
SESSION_TOKEN_BYTES_MAX = 2048
CONSISTENCY_WAIT_SECONDS = 2.0
CONSISTENCY_WAIT_SECONDS_MAX = 30.0
STALENESS_SECONDS_MAX = 86_400.0
STALENESS_VERSIONS_MAX = 1_000_000
VERSIONS_SILENCE_SECONDS = 2.5
INDEX_LOOK_SECONDS = 0.005

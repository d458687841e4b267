-- CRM Events Sink: the schema of journal.db, version 6 (PRAGMA user_version).
-- One file holds every event, every record that could not become one, and where to read on in Kafka;
-- a batch changes all of them in one transaction, so the file alone says what was taken from each partition.

-- Every event, exactly as it came. Ids grow, are never reused, and order received_at.
CREATE TABLE event_journal (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id       TEXT    NOT NULL,   -- payload.tenant_id; 'unknown' where there is none
    topic           TEXT    NOT NULL,
    payload         TEXT    NOT NULL,   -- the record's value, byte for byte: a JSON object
    received_at     TEXT    NOT NULL,   -- UTC, '2025-11-03 20:03:58.586440'
    kafka_partition INTEGER NOT NULL,
    kafka_offset    INTEGER NOT NULL,
    kafka_key       ANY,                -- TEXT where it is UTF-8, else BLOB; NULL where the record had none
    kafka_headers   TEXT,               -- [["name","value"],…] in order, names may repeat; {"base64":…} where not UTF-8
    kafka_timestamp INTEGER,            -- milliseconds since 1970-01-01 UTC, as the record carries it
    replay_of       INTEGER,            -- the id of the row that this event is a replay of
    kafka_epoch     INTEGER NOT NULL DEFAULT 0, -- which log of this name: see kafka_position.epoch
    dlq_id          INTEGER,            -- the dead letter that a retry made this event of; its place in Kafka is this one's
    erased          INTEGER             -- the erasure that emptied payload, kafka_key and kafka_headers
) STRICT;

-- Events are found by segments of 1024 ids (src/store/segment.rs): what tenants, topics and keys come in no order is in
-- order within a segment, so that all that is written of these indexes is the last segment's few pages, however large the
-- journal is. To look a tenant or a key up is a seek for each segment.
-- What they cost (cargo bench --bench indexes: 300,000 events of 361 bytes and 200 tenants, batches of 2000). An event writes
-- 1,330 bytes to the log and the file, and takes 630 on the disk, of which these take 47, 32 and 37. With (kafka_key) for all
-- segments beside them it would write 7,010, since nearly every event would write a page of its own, at 0.3 of the speed;
-- with (tenant_id, received_at) and (topic, received_at) 3,230, at 0.6.
CREATE INDEX event_journal_tenant   ON event_journal (id >> 10, tenant_id, topic);
CREATE INDEX event_journal_key      ON event_journal (id >> 10, kafka_key) WHERE kafka_key IS NOT NULL;
CREATE INDEX event_journal_received ON event_journal (received_at);
CREATE INDEX event_journal_replay   ON event_journal (replay_of) WHERE replay_of IS NOT NULL;
CREATE INDEX event_journal_replays  ON event_journal (id) WHERE replay_of IS NOT NULL;

-- What SQLite's planner is told of event_journal, and is not so: that it is small. There are no other statistics, and by
-- its own guess a statement like `… WHERE received_at >= '2025-11-03' ORDER BY id` would read the whole table, from the
-- first event on, to spare itself sorting the ids. Every index of the table needs a row here, or none counts. With fewer
-- than ten rows it would leave one end of a range out; with more than ten it would read the table all the same. That a
-- segment has 18 rows is the least that makes it seek a tenant in each segment (a skip-scan) instead of reading all.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('event_journal', 'event_journal_tenant', '10 18 1 1'),
    ('event_journal', 'event_journal_key', '10 18 1'),
    ('event_journal', 'event_journal_received', '10 1'),
    ('event_journal', 'event_journal_replay', '10 1'),
    ('event_journal', 'event_journal_replays', '10 1');
ANALYZE sqlite_schema;

-- Every record that could not be journaled, with what is needed to repair it.
CREATE TABLE event_dlq (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    topic           TEXT    NOT NULL,
    payload         ANY,                -- the record's value, byte for byte: TEXT where it is UTF-8, else BLOB, NULL where absent
    error           TEXT    NOT NULL,   -- the reason and the precise message: 'not_json: … at line 1 column 3'
    received_at     TEXT    NOT NULL,
    reason          TEXT    NOT NULL,   -- value_absent, not_utf8, not_json, not_an_object, constraint, trigger
    kafka_partition INTEGER NOT NULL,
    kafka_offset    INTEGER NOT NULL,
    kafka_key       ANY,
    kafka_headers   TEXT,
    kafka_timestamp INTEGER,
    kafka_epoch     INTEGER NOT NULL DEFAULT 0,
    state           TEXT    NOT NULL DEFAULT 'open', -- open, journaled, republishing, republished, uncertain, discarded, erased
    attempts        INTEGER NOT NULL DEFAULT 0,      -- retries so far
    last_error      TEXT,               -- of the last retry
    last_attempt_at TEXT,               -- UTC, as received_at
    event_id        INTEGER,            -- the row of event_journal that it became
    note            TEXT,               -- why it was discarded, or what of it was edited
    tenant_id       TEXT,               -- payload.tenant_id, else the key's part before its first ':'; NULL: nobody's
    erased          INTEGER             -- the erasure that emptied payload, kafka_key and kafka_headers
) STRICT;

CREATE INDEX event_dlq_received ON event_dlq (received_at);
CREATE INDEX event_dlq_open     ON event_dlq (id) WHERE state = 'open';

-- Where to read on: the offset of the next record to take from each partition; and the range of offsets that ends
-- there and has no gap. A transaction changes one row here for each partition it stores records of.
CREATE TABLE kafka_position (
    topic           TEXT    NOT NULL,
    kafka_partition INTEGER NOT NULL,
    next_offset     INTEGER NOT NULL,
    epoch           INTEGER NOT NULL DEFAULT 0, -- logs of this name before this one: one more when a topic is recreated or truncated
    topic_id        TEXT,                       -- Kafka's id of the topic; NULL where the broker gives none
    first_offset    INTEGER NOT NULL DEFAULT 0, -- where the range begins
    journaled       INTEGER NOT NULL DEFAULT 0, -- of its offsets: records in event_journal,
    dead_lettered   INTEGER NOT NULL DEFAULT 0, -- in event_dlq,
    not_delivered   INTEGER NOT NULL DEFAULT 0, -- and transaction markers, or what compaction removed
    pruned          INTEGER NOT NULL DEFAULT 0, -- rows that were deleted from this file again
    verified_offset INTEGER NOT NULL DEFAULT 0, -- the topic was the same when what came before this offset was read
    end_seen        INTEGER NOT NULL DEFAULT 0, -- where the broker's log ended when it was last heard of
    compare_until   INTEGER NOT NULL DEFAULT 0, -- rows of the log before, below this offset, may be records of this one
    halted          TEXT,                       -- why nothing is taken until POST /consumer/resume
    PRIMARY KEY (topic, kafka_partition)
) STRICT, WITHOUT ROWID;

-- The ranges before that one: what the file holds, and why it does not hold the rest. next_offset is not in the range.
CREATE TABLE kafka_range (
    topic           TEXT    NOT NULL,
    kafka_partition INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    first_offset    INTEGER NOT NULL,
    kind            TEXT    NOT NULL,   -- held, before_first_read, expired, recreated, truncated, other_member, unexplained
    next_offset     INTEGER NOT NULL,
    journaled       INTEGER NOT NULL DEFAULT 0,
    dead_lettered   INTEGER NOT NULL DEFAULT 0,
    not_delivered   INTEGER NOT NULL DEFAULT 0,
    pruned          INTEGER NOT NULL DEFAULT 0,
    recorded_at     TEXT    NOT NULL,   -- UTC, as received_at
    detail          TEXT,               -- the other member
    PRIMARY KEY (topic, kafka_partition, epoch, first_offset, kind)
) STRICT, WITHOUT ROWID;

-- Whoever deletes a row, the ranges know.
CREATE TRIGGER event_journal_pruned AFTER DELETE ON event_journal WHEN OLD.dlq_id IS NULL BEGIN
    UPDATE kafka_position SET pruned = pruned + 1
    WHERE topic = OLD.topic AND kafka_partition = OLD.kafka_partition AND epoch = OLD.kafka_epoch
      AND OLD.kafka_offset >= first_offset;
    UPDATE kafka_range SET pruned = pruned + 1
    WHERE topic = OLD.topic AND kafka_partition = OLD.kafka_partition AND epoch = OLD.kafka_epoch AND kind = 'held'
      AND OLD.kafka_offset >= first_offset AND OLD.kafka_offset < next_offset;
END;
CREATE TRIGGER event_dlq_pruned AFTER DELETE ON event_dlq BEGIN
    UPDATE kafka_position SET pruned = pruned + 1
    WHERE topic = OLD.topic AND kafka_partition = OLD.kafka_partition AND epoch = OLD.kafka_epoch
      AND OLD.kafka_offset >= first_offset;
    UPDATE kafka_range SET pruned = pruned + 1
    WHERE topic = OLD.topic AND kafka_partition = OLD.kafka_partition AND epoch = OLD.kafka_epoch AND kind = 'held'
      AND OLD.kafka_offset >= first_offset AND OLD.kafka_offset < next_offset;
END;

-- A bulk replay: its events are frozen when it is made.
CREATE TABLE replay_job (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    state           TEXT    NOT NULL,   -- running, paused, finished, cancelled
    created_at      TEXT    NOT NULL,   -- UTC, as received_at
    ended_at        TEXT,
    operator        TEXT    NOT NULL,
    reason          TEXT,
    request         TEXT    NOT NULL,   -- the filter that chose the events, as JSON
    to_topic        TEXT,               -- NULL: each event's own
    rate_per_s      INTEGER NOT NULL,
    total           INTEGER NOT NULL,   -- rows in replay_item
    skipped         INTEGER NOT NULL,   -- superseded events and replays that were left out
    token           TEXT    NOT NULL,   -- tells this job's records from those of a job that had its id in a restored file
    idempotency_key TEXT    UNIQUE,
    fingerprint     TEXT,               -- of the request that came with the key
    tenant_id       TEXT                -- the only tenant whose events it may hold; NULL: any
) STRICT;

-- What became of each event of a job.
CREATE TABLE replay_item (
    job_id             INTEGER NOT NULL,
    event_id           INTEGER NOT NULL,
    state              TEXT    NOT NULL, -- pending, in_flight, acknowledged, failed, uncertain, cancelled
    topic              TEXT,             -- where the broker put it,
    kafka_partition    INTEGER,
    kafka_offset       INTEGER,
    error              TEXT,
    observed           INTEGER NOT NULL DEFAULT 0, -- how often the sink read it back,
    observed_partition INTEGER,                    -- and where it did last
    observed_offset    INTEGER,
    PRIMARY KEY (job_id, event_id)
) STRICT, WITHOUT ROWID;

-- What operators did, or tried to. Rows are only ever added.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         TEXT    NOT NULL,        -- UTC, as received_at
    operator   TEXT    NOT NULL,        -- who says to be asking
    origin     TEXT    NOT NULL,        -- the address that asked
    action     TEXT    NOT NULL,        -- replay, replay.job, replay.job.cancel, dlq.retry, …
    target     TEXT    NOT NULL,        -- which event, job or dead letter; or the filter
    reason     TEXT,                    -- why, in the operator's words
    count      INTEGER,                 -- how many events or dead letters it is about
    outcome    TEXT    NOT NULL,        -- started, done, dry_run, refused, failed, unknown
    detail     TEXT,
    started_id INTEGER,                 -- the row that says 'started' of the same act
    tenant_id  TEXT                     -- the only tenant that whoever acts may see; NULL: any
) STRICT;
CREATE INDEX audit_tenant ON audit (tenant_id, id) WHERE tenant_id IS NOT NULL;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit only grows: its rows are not changed');
END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit only grows: its rows are not deleted');
END;

-- The hash chains (journal.chain): a link for each row of the journal and of the audit, made of the link before it and of
-- the row; docs/integrity-chain.md says how. Measured with benches/append.rs:
-- 60 bytes a row (690 without), 0.81 to 0.86 of the rows a second.
CREATE TABLE event_chain (
    id      INTEGER PRIMARY KEY,        -- of the row in event_journal
    salt    BLOB,                       -- 16 random bytes that are hashed with the row's content; NULL: it is erased,
    content BLOB,                       -- and this is that hash
    link    BLOB    NOT NULL
) STRICT;
CREATE TABLE audit_chain (
    id      INTEGER PRIMARY KEY,        -- of the row in audit
    link    BLOB    NOT NULL
) STRICT;

-- Where the chains begin and end. A segment is what was chained from turning them on to turning them off.
CREATE TABLE chain_segment (
    chain     TEXT    NOT NULL,         -- journal, audit
    first_id  INTEGER NOT NULL,         -- the row that it began with
    anchor_id INTEGER NOT NULL,         -- the last row that was pruned; without one the row before first_id
    anchor    BLOB    NOT NULL,         -- its link: what the next row's is made with
    pruned_by INTEGER,                  -- the row of audit that says who pruned it
    last_id   INTEGER NOT NULL,         -- the head: the newest row,
    last_link BLOB    NOT NULL,         -- and its link
    ended_at  TEXT,                     -- UTC, as received_at; NULL: rows are added
    PRIMARY KEY (chain, first_id)
) STRICT, WITHOUT ROWID;

-- What was erased of a tenant or of one key, and how far that has come.
CREATE TABLE erasure (
    id             INTEGER PRIMARY KEY, -- the row of audit that says 'started': the mark of the rows that it erases
    tenant_id      TEXT    NOT NULL,
    key_digest     TEXT,                -- of the key that is meant; NULL: the whole tenant
    last_event_id  INTEGER NOT NULL,    -- rows after these came later and are not meant
    last_letter_id INTEGER NOT NULL,
    events         INTEGER NOT NULL DEFAULT 0, -- erased so far, and between which ids
    letters        INTEGER NOT NULL DEFAULT 0,
    jobs           INTEGER NOT NULL DEFAULT 0, -- replay jobs whose filter named the key
    min_event_id   INTEGER,
    max_event_id   INTEGER,
    done_at        TEXT                 -- UTC, as received_at; NULL: not at its end
) STRICT;

-- Files of the archive: every event that was pruned since it is on, and none twice. A file is listed before it has its
-- name, and has it before its events are deleted.
CREATE TABLE archive_file (
    id             INTEGER PRIMARY KEY,
    path           TEXT    NOT NULL UNIQUE, -- in archive.folder
    tenant_id      TEXT    NOT NULL,
    day            TEXT    NOT NULL,    -- of received_at, UTC: '2025-11-03'
    rows           INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    sha256         TEXT    NOT NULL,    -- of the file, in hexadecimal digits
    first_event_id INTEGER NOT NULL,
    last_event_id  INTEGER NOT NULL,
    written_at     TEXT    NOT NULL,    -- UTC, as received_at
    erased         INTEGER              -- the erasure that removed the file
) STRICT;
CREATE INDEX archive_file_last ON archive_file (last_event_id);

-- What this file is: journal_id tells this journal's replays from another's; member_id is the box's name in its Kafka
-- group, which a file that takes this one's place keeps.
CREATE TABLE journal_info (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO journal_info VALUES ('journal_id', lower(hex(randomblob(16))));
INSERT INTO journal_info VALUES ('member_id', lower(hex(randomblob(8))));
-- What was deleted or moved left no copies in the pages' unused parts, from the file's first day on.
INSERT INTO journal_info VALUES ('unused_parts', 'zeroed');

PRAGMA application_id = 0x43455331; -- 'CES1'
PRAGMA user_version = 6;

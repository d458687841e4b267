-- CRM Events Sink: the schema of journal.db, version 1 (PRAGMA user_version).
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
    replay_of       INTEGER             -- the id of the row that this event is a replay of
) STRICT;

CREATE INDEX event_journal_tenant_received ON event_journal (tenant_id, received_at);
CREATE INDEX event_journal_topic_received  ON event_journal (topic, received_at);
CREATE INDEX event_journal_received        ON event_journal (received_at);
CREATE INDEX event_journal_replay          ON event_journal (replay_of) WHERE replay_of IS NOT NULL;

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
    kafka_timestamp INTEGER
) STRICT;

CREATE INDEX event_dlq_received ON event_dlq (received_at);

-- Where to read on: the offset of the next record to take from each partition.
CREATE TABLE kafka_position (
    topic           TEXT    NOT NULL,
    kafka_partition INTEGER NOT NULL,
    next_offset     INTEGER NOT NULL,
    PRIMARY KEY (topic, kafka_partition)
) STRICT, WITHOUT ROWID;

-- What this file is: journal_id tells this journal's replays from another box's.
CREATE TABLE journal_info (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO journal_info VALUES ('journal_id', lower(hex(randomblob(16))));

PRAGMA application_id = 0x43455331; -- 'CES1'
PRAGMA user_version = 1;

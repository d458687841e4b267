-- Version 2 to 3: replay jobs, dead letters that can be worked on, the audit.
ALTER TABLE event_journal ADD COLUMN dlq_id INTEGER;
CREATE INDEX event_journal_key ON event_journal (kafka_key) WHERE kafka_key IS NOT NULL;
ALTER TABLE event_dlq ADD COLUMN state TEXT NOT NULL DEFAULT 'open';
ALTER TABLE event_dlq ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event_dlq ADD COLUMN last_error TEXT;
ALTER TABLE event_dlq ADD COLUMN last_attempt_at TEXT;
ALTER TABLE event_dlq ADD COLUMN event_id INTEGER;
ALTER TABLE event_dlq ADD COLUMN note TEXT;
CREATE INDEX event_dlq_open ON event_dlq (id) WHERE state = 'open';
DROP TRIGGER event_journal_pruned;
CREATE TRIGGER event_journal_pruned AFTER DELETE ON event_journal WHEN OLD.dlq_id IS NULL BEGIN
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
    fingerprint     TEXT                -- of the request that came with the key
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
    started_id INTEGER                  -- the row that says 'started' of the same act
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit only grows: its rows are not changed');
END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit only grows: its rows are not deleted');
END;

PRAGMA user_version = 3;

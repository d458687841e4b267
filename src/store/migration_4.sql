-- Version 3 to 4: whose dead letters, jobs and acts these are; erasure; the hash chains; how events are found.
ALTER TABLE event_dlq ADD COLUMN tenant_id TEXT;
ALTER TABLE replay_job ADD COLUMN tenant_id TEXT;
ALTER TABLE audit ADD COLUMN tenant_id TEXT;
CREATE INDEX audit_tenant ON audit (tenant_id, id) WHERE tenant_id IS NOT NULL;

-- Of the letters that are there: as dead_letter::tenant decides. A number's text is the JSON's own.
UPDATE event_dlq SET tenant_id = CASE
    WHEN typeof(payload) = 'text' AND json_valid(payload) AND json_type(payload) = 'object'
         AND json_type(payload, '$.tenant_id') = 'text' THEN payload->>'tenant_id'
    WHEN typeof(payload) = 'text' AND json_valid(payload) AND json_type(payload) = 'object'
         AND json_type(payload, '$.tenant_id') IN ('integer', 'real') THEN payload->'tenant_id'
    WHEN typeof(kafka_key) = 'text' AND instr(kafka_key, ':') > 1 THEN substr(kafka_key, 1, instr(kafka_key, ':') - 1)
    END;
ALTER TABLE event_journal ADD COLUMN erased INTEGER;
ALTER TABLE event_dlq ADD COLUMN erased INTEGER;
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
CREATE INDEX event_journal_replays ON event_journal (received_at) WHERE replay_of IS NOT NULL;
-- Why: see schema.sql.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('event_journal', 'event_journal_tenant_received', '10 5 1'),
    ('event_journal', 'event_journal_topic_received', '10 5 1'),
    ('event_journal', 'event_journal_received', '10 1'),
    ('event_journal', 'event_journal_replay', '10 1'),
    ('event_journal', 'event_journal_replays', '10 1'),
    ('event_journal', 'event_journal_key', '10 1');
ANALYZE sqlite_schema;

PRAGMA user_version = 4;

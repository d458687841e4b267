-- Version 5 to 6: events are found by segments of their ids. Why: see schema.sql.
DROP INDEX event_journal_tenant_received;
DROP INDEX event_journal_topic_received;
DROP INDEX event_journal_key;
DROP INDEX event_journal_replays;
CREATE INDEX event_journal_tenant  ON event_journal (id >> 10, tenant_id, topic);
CREATE INDEX event_journal_key     ON event_journal (id >> 10, kafka_key) WHERE kafka_key IS NOT NULL;
CREATE INDEX event_journal_replays ON event_journal (id) WHERE replay_of IS NOT NULL;
DELETE FROM sqlite_stat1 WHERE tbl = 'event_journal';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('event_journal', 'event_journal_tenant', '10 18 1 1'),
    ('event_journal', 'event_journal_key', '10 18 1'),
    ('event_journal', 'event_journal_received', '10 1'),
    ('event_journal', 'event_journal_replay', '10 1'),
    ('event_journal', 'event_journal_replays', '10 1');
ANALYZE sqlite_schema;

PRAGMA user_version = 6;

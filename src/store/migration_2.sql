-- Version 1 to 2. Version 1 knew where to read on, not what it had before: the range of each partition is what its rows
-- say, from the first to the position. Offsets in it without a row were not delivered, or are rows deleted since.
ALTER TABLE event_journal ADD COLUMN kafka_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event_dlq ADD COLUMN kafka_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN topic_id TEXT;
ALTER TABLE kafka_position ADD COLUMN first_offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN journaled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN dead_lettered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN not_delivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN verified_offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN end_seen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN compare_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kafka_position ADD COLUMN halted TEXT;
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
CREATE TRIGGER event_journal_pruned AFTER DELETE ON event_journal BEGIN
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


CREATE TEMP TABLE held AS
    SELECT topic, kafka_partition, min(kafka_offset) AS first_offset, sum(journaled) AS journaled, sum(1 - journaled) AS dead_lettered
    FROM (SELECT topic, kafka_partition, kafka_offset, 1 AS journaled FROM event_journal
          UNION ALL SELECT topic, kafka_partition, kafka_offset, 0 FROM event_dlq)
    GROUP BY topic, kafka_partition;
UPDATE kafka_position AS p
SET first_offset = h.first_offset, journaled = h.journaled, dead_lettered = h.dead_lettered,
    not_delivered = max(0, p.next_offset - h.first_offset - h.journaled - h.dead_lettered), end_seen = p.next_offset
FROM temp.held AS h WHERE h.topic = p.topic AND h.kafka_partition = p.kafka_partition;
UPDATE kafka_position SET first_offset = next_offset WHERE journaled + dead_lettered = 0;
DROP TABLE temp.held;

INSERT INTO journal_info VALUES ('member_id', lower(hex(randomblob(8))));
PRAGMA user_version = 2;

-- Version 4 to 5: the archive.
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

PRAGMA user_version = 5;

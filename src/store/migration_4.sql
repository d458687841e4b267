-- Version 3 to 4: whose dead letters, jobs and acts these are.
ALTER TABLE event_dlq ADD COLUMN tenant_id TEXT;
ALTER TABLE replay_job ADD COLUMN tenant_id TEXT;
ALTER TABLE audit ADD COLUMN tenant_id TEXT;
CREATE INDEX audit_tenant ON audit (tenant_id, id) WHERE tenant_id IS NOT NULL;

PRAGMA user_version = 4;

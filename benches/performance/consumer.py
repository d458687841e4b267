"""Kafka into SQLite as one would write it in an afternoon: what the sink is measured beside.

consumer.py BROKERS GROUP FILE COUNT BATCH: ends after COUNT records, when its standard input is closed."""

import json
import sqlite3
import sys
from datetime import datetime, timezone

from confluent_kafka import Consumer

brokers, group, path, count, batch = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
db = sqlite3.connect(path)
db.executescript(
    """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE event_journal (
        id INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL, topic TEXT NOT NULL, payload TEXT NOT NULL, received_at TEXT NOT NULL,
        kafka_partition INTEGER NOT NULL, kafka_offset INTEGER NOT NULL, kafka_key TEXT);
    CREATE INDEX event_journal_tenant ON event_journal (tenant_id, received_at);
    CREATE INDEX event_journal_topic ON event_journal (topic, received_at);
    """
)
consumer = Consumer(
    {"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
)
consumer.subscribe(["^apexflow\\..*"])
insert = (
    "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key) "
    "VALUES (?,?,?,?,?,?,?)"
)
done = 0
while done < count:
    rows = []
    for message in consumer.consume(min(batch, count - done), timeout=1.0):
        if message.error():
            continue
        payload = message.value().decode()
        tenant = json.loads(payload).get("tenant_id", "unknown")
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
        key = message.key().decode() if message.key() else None
        rows.append((tenant, message.topic(), payload, now, message.partition(), message.offset(), key))
    if rows:
        with db:
            db.executemany(insert, rows)
        consumer.commit(asynchronous=False)
        done += len(rows)
sys.stdin.read()
consumer.close()
db.close()

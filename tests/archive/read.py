"""Every event of an archive as DuckDB reads it, a line each, in the order of the ids. A tenant without a name is NULL to it."""

import json
import sys

import duckdb

ROWS = """
    SELECT id, coalesce(tenant_id, ''), topic, hex(payload), epoch_us(received_at), kafka_partition, kafka_offset, hex(kafka_key),
           hex(kafka_headers), kafka_timestamp, replay_of, kafka_epoch, dlq_id, erased, CAST(date AS VARCHAR)
    FROM read_parquet(?, hive_partitioning = true, hive_types_autocast = false)
    ORDER BY id
"""

for row in duckdb.execute(ROWS, [sys.argv[1] + "/*/*/*.parquet"]).fetchall():
    print(json.dumps(row, separators=(",", ":"), ensure_ascii=False))

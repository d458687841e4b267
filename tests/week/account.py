"""Whether archive and journal together hold each record of the broker once.

   account.py JOURNAL ARCHIVE < lines of "topic partition records"

A record is an event, in the archive, the journal or (kept for a job) in both under one id, or a dead letter. Prints what was
counted; exit code 1 if a record is missing, doubled, or not the broker's.
"""

import sqlite3
import sys

import duckdb

journal = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
places = "topic, kafka_partition, kafka_offset"
kept = journal.execute(f"SELECT id, {places} FROM event_journal").fetchall()
letters = journal.execute(f"SELECT {places} FROM event_dlq").fetchall()
files = sys.argv[2] + "/*/*/*.parquet"
read = f"SELECT id, {places} FROM read_parquet(?, hive_partitioning = true, hive_types_autocast = false)"
archived = duckdb.execute(read, [files]).fetchall()

faults = []
if len(set(archived)) != len(archived):
    faults.append(f"{len(archived) - len(set(archived))} events are in the archive twice")
events = set(archived) | set(kept)
found = [place for _, *place in events] + [list(place) for place in letters]
sent = [[topic, int(partition), offset] for topic, partition, records in map(str.split, sys.stdin) for offset in range(int(records))]
found.sort()
sent.sort()
if found != sent:
    alone = set(map(tuple, sent)) ^ set(map(tuple, found))
    faults.append(f"{len(sent)} were sent and {len(found)} found; {len(alone)} differ, as {sorted(alone)[:3]}")
print(f"sent {len(sent)}, archived {len(archived)}, in the journal {len(kept)}, in both {len(archived) + len(kept) - len(events)}, dead letters {len(letters)}")
for fault in faults:
    print(f"FAULT: {fault}")
sys.exit(bool(faults))

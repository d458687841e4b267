#!/usr/bin/env python3
"""Computes the hash chains of a journal again, from docs/integrity-chain.md alone: no code of the sink is used.

    recompute.py journal.db

Prints each chain's head as `crm-events-sink verify --chain` does, and exits 1 where a link is not what it should be.
"""
import hashlib
import sqlite3
import struct
import sys

EVENT = ("tenant_id, topic, received_at, kafka_partition, kafka_offset, kafka_timestamp, replay_of, dlq_id")
AUDIT = "at, operator, origin, action, target, reason, count, outcome, detail, started_id, tenant_id"


class Text(bytes):
    """A value of SQLite's type TEXT, as its bytes."""


def encode(value):
    if value is None:
        return b"n"
    if isinstance(value, int):
        return b"i" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"r" + struct.pack(">d", value)
    kind = b"t" if isinstance(value, Text) else b"b"
    return kind + struct.pack(">Q", len(value)) + value


def digest(kind, *values):
    return hashlib.sha256(b"".join(encode(value) for value in (Text(kind.encode()), *values))).digest()


def segments(journal, chain):
    select = "SELECT first_id, anchor_id, anchor, last_id, last_link FROM chain_segment WHERE chain = ? ORDER BY first_id"
    return journal.execute(select, (chain,)).fetchall()


def check(chain, rows, links, journal_id, journal):
    """`rows` gives id, what the link is made of beside the link before; `links` what stands in the file."""
    before = None
    for first, anchor_id, anchor, last, last_link in segments(journal, chain):
        if anchor_id == first - 1 and anchor != digest("segment", journal_id, Text(chain.encode()), first, before):
            sys.exit(f"{chain}: segment {first} does not begin as it should")
        link = anchor
        for number, link_of in rows(anchor_id, last):
            link = link_of(link)
            if link != links[number]:
                sys.exit(f"{chain}: row {number} has another link")
        if link != last_link:
            sys.exit(f"{chain}: the last row is not the head")
        before = last_link
        print(f"{chain}:{last}:{link.hex()}")


def main():
    journal = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    journal.text_factory = Text
    (journal_id,) = journal.execute("SELECT value FROM journal_info WHERE name = 'journal_id'").fetchone()

    def events(after, last):
        select = (f"SELECT id, salt, content, payload, kafka_key, kafka_headers, {EVENT} FROM event_journal JOIN event_chain "
                  "USING (id) WHERE id > ? AND id <= ? ORDER BY id")
        for number, salt, content, payload, key, headers, *rest in journal.execute(select, (after, last)):
            if salt is not None:
                content = digest("content", salt, payload, key, headers)
            yield number, lambda before: digest("event", before, number, content, *rest)

    def audit(after, last):
        select = f"SELECT id, {AUDIT} FROM audit WHERE id > ? AND id <= ? ORDER BY id"
        for number, *values in journal.execute(select, (after, last)):
            yield number, lambda before: digest("audit", before, number, *values)

    check("journal", events, dict(journal.execute("SELECT id, link FROM event_chain")), journal_id, journal)
    check("audit", audit, dict(journal.execute("SELECT id, link FROM audit_chain")), journal_id, journal)


main()

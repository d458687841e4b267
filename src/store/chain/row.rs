//! Rows as they are chained.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::hash::{Hash, Values};
use super::segment::Segment;

/// Bytes of a row's salt.
const SALT: usize = 16;
/// Salts that are made at once: 256 bytes are the most that the kernel gives in one piece whatever happens.
const SALTS: usize = 256 / SALT;

/// The content of a row that was erased.
pub const ERASED: [ValueRef; 3] = [ValueRef::Text(b"{}"), ValueRef::Null, ValueRef::Null];

/// A row of the journal.
pub struct EventRow<'a> {
    /// What erasure takes: payload, kafka_key, kafka_headers.
    pub content: [ValueRef<'a>; 3],
    /// What stays: tenant_id, topic, received_at, kafka_partition, kafka_offset, kafka_timestamp, replay_of, dlq_id.
    pub rest: [ValueRef<'a>; 8],
}

impl EventRow<'_> {
    /// The columns in the order in which [`EventRow::from_row`] reads them.
    pub const COLUMNS: &'static str = "payload, kafka_key, kafka_headers, tenant_id, topic, received_at, kafka_partition, \
                               kafka_offset, kafka_timestamp, replay_of, dlq_id";

    /// Reads the columns that begin at `at`.
    pub fn from_row<'a>(row: &'a Row, at: usize) -> rusqlite::Result<EventRow<'a>> {
        let (mut content, mut rest) = ([ValueRef::Null; 3], [ValueRef::Null; 8]);
        for (column, value) in content.iter_mut().chain(&mut rest).enumerate() {
            *value = row.get_ref(at + column)?;
        }
        Ok(EventRow { content, rest })
    }

    pub fn content(&self, salt: &[u8]) -> Hash {
        Values::of("content").blob(salt).values(self.content).hash()
    }

    pub fn link(&self, before: &Hash, id: i64, content: &Hash) -> Hash {
        Values::of("event").blob(before).integer(id).blob(content).values(self.rest).hash()
    }
}

/// The columns of an audit row that are chained, in their order.
pub const AUDIT_COLUMNS: &str =
    "at, operator, origin, action, target, reason, count, outcome, detail, started_id, tenant_id";
const AUDIT_COLUMNS_COUNT: usize = 11;

/// The link of an audit row whose columns begin at `at`.
pub fn audit_link(before: &Hash, id: i64, row: &Row, at: usize) -> rusqlite::Result<Hash> {
    let mut values = Values::of("audit").blob(before).integer(id);
    for column in at..at + AUDIT_COLUMNS_COUNT {
        values = values.value(row.get_ref(column)?);
    }
    Ok(values.hash())
}

/// The end of the journal's chain, within one transaction.
pub struct Head {
    segment: Segment,
    salts: [u8; SALT * SALTS],
    salts_used: usize,
}

impl Head {
    /// None while the chain is off.
    pub fn open(connection: &Connection) -> rusqlite::Result<Option<Head>> {
        let segment = Segment::open(connection, "journal")?;
        Ok(segment.map(|segment| Head { segment, salts: [0; SALT * SALTS], salts_used: SALTS }))
    }

    /// Chains the row `id`, which was inserted just now.
    pub fn add(&mut self, connection: &Connection, id: i64, row: &EventRow) -> rusqlite::Result<()> {
        let salt = self.salt()?;
        let link = row.link(&self.segment.last_link, id, &row.content(&salt));
        // A row that somebody put there by hand must not keep events out.
        let sql = "INSERT OR REPLACE INTO event_chain (id, salt, link) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![id, salt, link])?;
        (self.segment.last_id, self.segment.last_link) = (id, link);
        Ok(())
    }

    /// Has the file know the end: in the transaction of the rows.
    pub fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        save(connection, "journal", &self.segment)
    }

    fn salt(&mut self) -> rusqlite::Result<[u8; SALT]> {
        if self.salts_used == SALTS {
            let filled = rustix::rand::getrandom(&mut self.salts, rustix::rand::GetRandomFlags::empty());
            filled.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            self.salts_used = 0;
        }
        let mut salt = [0; SALT];
        salt.copy_from_slice(&self.salts[self.salts_used * SALT..][..SALT]);
        self.salts_used += 1;
        Ok(salt)
    }
}

fn save(connection: &Connection, chain: &str, segment: &Segment) -> rusqlite::Result<()> {
    let sql = "UPDATE chain_segment SET last_id = ?3, last_link = ?4 WHERE chain = ?1 AND first_id = ?2";
    let end = params![chain, segment.first_id, segment.last_id, segment.last_link];
    connection.prepare_cached(sql)?.execute(end).map(drop)
}

/// Chains the row of the journal that was inserted as `id`, as it stands there; not one that a trigger had ignored.
pub fn add_event(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let Some(mut head) = Head::open(connection)?.filter(|head| id > head.segment.last_id) else { return Ok(()) };
    let sql = format!("SELECT {} FROM event_journal WHERE id = ?1", EventRow::COLUMNS);
    let mut select = connection.prepare_cached(&sql)?;
    select.query_row([id], |row| head.add(connection, id, &EventRow::from_row(row, 0)?))?;
    head.save(connection)
}

/// Chains the row of the audit that was inserted as `id`.
pub fn add_audit_row(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let Some(mut segment) = Segment::open(connection, "audit")? else { return Ok(()) };
    let sql = format!("SELECT {AUDIT_COLUMNS} FROM audit WHERE id = ?1");
    let mut select = connection.prepare_cached(&sql)?;
    let link = select.query_row([id], |row| audit_link(&segment.last_link, id, row, 0))?;
    let sql = "INSERT OR REPLACE INTO audit_chain (id, link) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![id, link])?;
    (segment.last_id, segment.last_link) = (id, link);
    save(connection, "audit", &segment)
}

/// Before the content of row `id` goes: keeps its hash and destroys the salt. A row that is not chained has none.
pub fn seal(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT salt, {} FROM event_chain JOIN event_journal USING (id) WHERE id = ?1 AND salt IS NOT NULL",
        EventRow::COLUMNS
    );
    let mut select = connection.prepare_cached(&sql)?;
    let mut rows = select.query([id])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let content = EventRow::from_row(row, 1)?.content(row.get_ref(0)?.as_blob()?);
    drop(rows);
    let sql = "UPDATE event_chain SET salt = NULL, content = ?2 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![id, content]).map(drop)
}

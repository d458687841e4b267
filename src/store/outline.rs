//! The journal's shape, for somebody who may not see what is in it.

use std::fmt::Write;
use std::path::Path;

use rusqlite::Connection;

use super::{StoreError, check, check_head};

/// Version, pages, counts and the schema, as text: of no row what is in it, but for topics and offsets.
///
/// # Errors
/// If it is not a journal, or cannot be read.
pub fn outline(journal: &Path) -> Result<String, StoreError> {
    check_head(journal)?;
    let connection = check::open_to_look(journal)?;
    check::contents(&connection, journal, false)?;
    describe(&connection).map_err(|error| StoreError::at(journal, error))
}

fn describe(connection: &Connection) -> rusqlite::Result<String> {
    let mut text = String::new();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    for pragma in ["user_version", "page_size", "page_count", "freelist_count", "auto_vacuum"] {
        writeln!(text, "{pragma}: {}", number(&format!("PRAGMA {pragma}"))?).ok();
    }
    let mut tables = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let tables: Vec<(String, Option<String>)> = tables.collect::<rusqlite::Result<_>>()?;
    for (table, _) in &tables {
        let quoted = table.replace('"', "\"\"");
        writeln!(text, "rows of {table}: {}", number(&format!("SELECT count(*) FROM \"{quoted}\""))?).ok();
    }
    let mut offsets = connection.prepare(
        "SELECT topic || '/' || kafka_partition || ': next offset ' || next_offset FROM kafka_position ORDER BY 1",
    )?;
    for line in offsets.query_map([], |row| row.get::<_, String>(0))? {
        writeln!(text, "{}", line?).ok();
    }
    let mut schema = connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")?;
    for sql in schema.query_map([], |row| row.get::<_, String>(0))? {
        writeln!(text, "\n{};", sql?).ok();
    }
    Ok(text)
}

//! The columns of a Parquet file of the archive: those of `event_journal`, under their names and in their order.

use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel};
use parquet::errors::Result;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{ColumnPath, Type, TypePtr};

use crate::store::JournalRow;

pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

/// How a column's value is had from a row. Numbers are 64 bits wide, as SQLite's are.
pub enum Kind {
    Text(fn(&JournalRow) -> &str),
    OptionalText(fn(&JournalRow) -> Option<&str>),
    OptionalBytes(fn(&JournalRow) -> Option<&[u8]>),
    /// Microseconds since 1970-01-01 UTC.
    Time(fn(&JournalRow) -> i64),
    Number(fn(&JournalRow) -> i64),
    OptionalNumber(fn(&JournalRow) -> Option<i64>),
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

pub const COLUMNS: &[Column] = &[
    column("id", Kind::Number(|row| row.id)),
    column("tenant_id", Kind::Text(|row| &row.tenant_id)),
    column("topic", Kind::Text(|row| &row.topic)),
    column("payload", Kind::Text(|row| &row.payload)),
    column("received_at", Kind::Time(|row| row.received_at)),
    column("kafka_partition", Kind::Number(|row| row.kafka_partition)),
    column("kafka_offset", Kind::Number(|row| row.kafka_offset)),
    column("kafka_key", Kind::OptionalBytes(|row| row.kafka_key.as_deref())),
    column("kafka_headers", Kind::OptionalText(|row| row.kafka_headers.as_deref())),
    // No time to Parquet: a producer may write any number, and engines fail on those that are no time.
    column("kafka_timestamp", Kind::OptionalNumber(|row| row.kafka_timestamp)),
    column("replay_of", Kind::OptionalNumber(|row| row.replay_of)),
    column("kafka_epoch", Kind::Number(|row| row.kafka_epoch)),
    column("dlq_id", Kind::OptionalNumber(|row| row.dlq_id)),
    column("erased", Kind::OptionalNumber(|row| row.erased)),
];

impl Column {
    fn to_parquet(&self) -> Result<Type> {
        let (physical, logical) = match self.kind {
            Kind::Text(_) | Kind::OptionalText(_) => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::OptionalBytes(_) => (PhysicalType::BYTE_ARRAY, None),
            Kind::Time(_) => (PhysicalType::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
            Kind::Number(_) | Kind::OptionalNumber(_) => (PhysicalType::INT64, None),
        };
        let repetition = match self.kind {
            Kind::Text(_) | Kind::Time(_) | Kind::Number(_) => Repetition::REQUIRED,
            Kind::OptionalText(_) | Kind::OptionalBytes(_) | Kind::OptionalNumber(_) => Repetition::OPTIONAL,
        };
        let built = Type::primitive_type_builder(self.name, physical).with_repetition(repetition);
        built.with_logical_type(logical).with_converted_type(ConvertedType::NONE).build()
    }
}

pub fn schema() -> Result<TypePtr> {
    let fields = COLUMNS.iter().map(|column| column.to_parquet().map(Arc::new)).collect::<Result<_>>()?;
    Ok(Arc::new(Type::group_type_builder("event_journal").with_fields(fields).build()?))
}

pub fn properties() -> WriterProperties {
    // Its values are all different, and nobody asks for a range of them.
    let payload = || ColumnPath::from("payload");
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_column_dictionary_enabled(payload(), false)
        .set_column_statistics_enabled(payload(), EnabledStatistics::None)
        .build()
}

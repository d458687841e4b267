//! Rows to a Parquet file, a row group for each page of them; and the file held against the rows.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};

use super::columns::{self, COLUMNS, Kind};
use crate::store::JournalRow;

/// A Parquet file that is being written.
pub struct Writing(SerializedFileWriter<BufWriter<File>>);

impl Writing {
    pub fn begin(path: &Path) -> Result<Writing> {
        let file = BufWriter::new(File::create(path)?);
        Ok(Writing(SerializedFileWriter::new(file, columns::schema()?, Arc::new(columns::properties()))?))
    }

    /// Adds a row group.
    pub fn add(&mut self, rows: &[JournalRow]) -> Result<()> {
        let mut group = self.0.next_row_group()?;
        for column in COLUMNS {
            let mut writer = group.next_column()?.expect("the schema is made of these columns");
            write(&mut writer, &column.kind, rows)?;
            writer.close()?;
        }
        group.close().map(drop)
    }

    /// Returns when the disk has all of it.
    pub fn end(self) -> Result<()> {
        let file = self.0.into_inner()?.into_inner().map_err(|error| ParquetError::from(error.into_error()))?;
        Ok(file.sync_all()?)
    }
}

fn write(writer: &mut SerializedColumnWriter, kind: &Kind, rows: &[JournalRow]) -> Result<()> {
    match kind {
        Kind::Text(value) => required(writer.typed::<ByteArrayType>(), rows.iter().map(|row| value(row).into())),
        Kind::Time(value) | Kind::Number(value) => required(writer.typed::<Int64Type>(), rows.iter().map(value)),
        Kind::OptionalText(value) => {
            optional(writer.typed::<ByteArrayType>(), rows.iter().map(|row| value(row).map(ByteArray::from)))
        }
        Kind::OptionalBytes(value) => {
            optional(writer.typed::<ByteArrayType>(), rows.iter().map(|row| value(row).map(bytes)))
        }
        Kind::OptionalNumber(value) => optional(writer.typed::<Int64Type>(), rows.iter().map(value)),
    }
}

fn bytes(bytes: &[u8]) -> ByteArray {
    ByteArray::from(bytes.to_vec())
}

fn required<T: DataType>(writer: &mut ColumnWriterImpl<T>, values: impl Iterator<Item = T::T>) -> Result<()> {
    writer.write_batch(&values.collect::<Vec<_>>(), None, None).map(drop)
}

fn optional<T: DataType>(writer: &mut ColumnWriterImpl<T>, values: impl Iterator<Item = Option<T::T>>) -> Result<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let are_there: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let there: Vec<T::T> = values.into_iter().flatten().collect();
    writer.write_batch(&there, Some(&are_there), None).map(drop)
}

/// A Parquet file that is read.
pub struct Reading {
    file: SerializedFileReader<File>,
    group: usize,
}

impl Reading {
    pub fn begin(path: &Path) -> Result<Reading> {
        Ok(Reading { file: SerializedFileReader::new(File::open(path)?)?, group: 0 })
    }

    pub fn rows(&self) -> i64 {
        self.file.metadata().file_metadata().num_rows()
    }

    /// Whether the next row group holds `rows`, and nothing else.
    pub fn is_next(&mut self, rows: &[JournalRow]) -> Result<bool> {
        let group = self.file.get_row_group(self.group)?;
        self.group += 1;
        if usize::try_from(group.metadata().num_rows()) != Ok(rows.len()) {
            return Ok(false);
        }
        for (number, column) in COLUMNS.iter().enumerate() {
            if !holds(&*group, number, &column.kind, rows)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn holds(group: &dyn RowGroupReader, column: usize, kind: &Kind, rows: &[JournalRow]) -> Result<bool> {
    let reader = group.get_column_reader(column)?;
    let count = rows.len();
    match kind {
        Kind::Text(value) => {
            let values = read(get_typed_column_reader::<ByteArrayType>(reader), count, false)?;
            Ok(same(&values, rows, |row| Some(value(row).into())))
        }
        Kind::OptionalText(value) => {
            let values = read(get_typed_column_reader::<ByteArrayType>(reader), count, true)?;
            Ok(same(&values, rows, |row| value(row).map(ByteArray::from)))
        }
        Kind::OptionalBytes(value) => {
            let values = read(get_typed_column_reader::<ByteArrayType>(reader), count, true)?;
            Ok(same(&values, rows, |row| value(row).map(bytes)))
        }
        Kind::Time(value) | Kind::Number(value) => {
            let values = read(get_typed_column_reader::<Int64Type>(reader), count, false)?;
            Ok(same(&values, rows, |row| Some(value(row))))
        }
        Kind::OptionalNumber(value) => {
            let values = read(get_typed_column_reader::<Int64Type>(reader), count, true)?;
            Ok(same(&values, rows, value))
        }
    }
}

fn read<T: DataType>(mut reader: ColumnReaderImpl<T>, count: usize, is_optional: bool) -> Result<Vec<Option<T::T>>> {
    let (mut are_there, mut values) = (Vec::new(), Vec::new());
    reader.read_records(count, Some(&mut are_there), None, &mut values)?;
    if !is_optional {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(are_there.into_iter().map(|is_there| if is_there == 1 { values.next() } else { None }).collect())
}

fn same<V: PartialEq>(values: &[Option<V>], rows: &[JournalRow], of: impl Fn(&JournalRow) -> Option<V>) -> bool {
    values.len() == rows.len() && values.iter().zip(rows).all(|(value, row)| *value == of(row))
}

//! Records of one topic as a Parquet file: typed columns, in groups of rows of a bounded size.

use super::columns::{Columns, Kind, signed, unsigned};
use super::sink::{Content, Row, other_size};
use crate::failure::{Done, FAILED, Failure};
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int32Type,
    Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};
use slipring::journal::{NumberType, RecordedTopic};
use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

/// A group of rows ends when its values have so many bytes in memory, if it has not ended with its number of rows.
const GROUP_BYTES: usize = 32 << 20;

/// What a value of variable length takes in memory besides its bytes, about.
const VALUE: usize = 64;

/// The columns that each file begins with.
const FIRST: [&str; 3] = ["partition", "offset", "timestamp"];

impl From<ParquetError> for Failure {
    fn from(cause: ParquetError) -> Self {
        match cause {
            ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
                Ok(cause) => (*cause).into(),
                Err(cause) => Self::new(FAILED, cause as Box<dyn std::error::Error>),
            },
            cause => Self::new(FAILED, cause),
        }
    }
}

/// The values of a column that wait for the end of their group of rows.
enum Values {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Values {
    fn of(number: NumberType) -> Self {
        match number {
            NumberType::U64 | NumberType::I64 => Self::Int64(Vec::new()),
            NumberType::F32 => Self::Float(Vec::new()),
            NumberType::F64 => Self::Double(Vec::new()),
            _ => Self::Int32(Vec::new()),
        }
    }

    /// Adds a number of this type. Numbers without a sign keep their bits, and the file's schema says that they have none.
    fn push(&mut self, number: NumberType, bytes: &[u8]) {
        let is_signed = matches!(number, NumberType::I8 | NumberType::I16 | NumberType::I32 | NumberType::I64);
        let whole = if is_signed { signed(bytes) } else { unsigned(bytes).cast_signed() };
        match self {
            Self::Int32(values) => values.push(whole as i32),
            Self::Int64(values) => values.push(whole),
            Self::Float(values) => values.push(f32::from_bits(whole as u32)),
            Self::Double(values) => values.push(f64::from_bits(whole.cast_unsigned())),
            Self::Fixed(values) => values.push(FixedLenByteArray::from(bytes.to_vec())),
            Self::Bytes(values) => values.push(ByteArray::from(bytes.to_vec())),
        }
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.push(NumberType::U8, bytes);
    }
}

/// A column of the file.
struct Column {
    values: Values,
    /// Greatest definition level: 1 if a row may have no value, otherwise 0.
    optional: bool,
    /// True if a row may have several values.
    repeated: bool,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl Column {
    fn required(values: Values) -> Self {
        Self { values, optional: false, repeated: false, definitions: Vec::new(), repetitions: Vec::new() }
    }

    fn optional(values: Values) -> Self {
        Self { optional: true, ..Self::required(values) }
    }

    fn list(values: Values) -> Self {
        Self { repeated: true, ..Self::optional(values) }
    }

    /// Notes the value with this number in its row that is pushed next; `None` for a row without a value.
    fn level(&mut self, index: Option<usize>) {
        if self.optional {
            self.definitions.push(i16::from(index.is_some()));
        }
        if self.repeated {
            self.repetitions.push(i16::from(index.is_some_and(|index| index > 0)));
        }
    }

    /// Writes the values and forgets them.
    fn write(&mut self, to: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        fn all<T: DataType>(
            values: &mut Vec<T::T>,
            to: &mut SerializedColumnWriter<'_>,
            levels: (Option<&[i16]>, Option<&[i16]>),
        ) -> Result<(), ParquetError> {
            to.typed::<T>().write_batch(values, levels.0, levels.1)?;
            values.clear();
            Ok(())
        }
        let levels = (self.optional.then_some(&self.definitions[..]), self.repeated.then_some(&self.repetitions[..]));
        match &mut self.values {
            Values::Int32(values) => all::<Int32Type>(values, to, levels),
            Values::Int64(values) => all::<Int64Type>(values, to, levels),
            Values::Float(values) => all::<FloatType>(values, to, levels),
            Values::Double(values) => all::<DoubleType>(values, to, levels),
            Values::Bytes(values) => all::<ByteArrayType>(values, to, levels),
            Values::Fixed(values) => all::<FixedLenByteArrayType>(values, to, levels),
        }?;
        self.definitions.clear();
        self.repetitions.clear();
        Ok(())
    }
}

/// A column's type in the file's schema.
fn leaf(
    name: &str,
    physical: Physical,
    logical: Option<LogicalType>,
    repetition: Repetition,
) -> Result<TypePtr, ParquetError> {
    let leaf = Type::primitive_type_builder(name, physical).with_logical_type(logical).with_repetition(repetition);
    leaf.build().map(Arc::new)
}

/// The type of a column of lists, whose elements are `element`.
fn list(name: &str, element: TypePtr) -> Result<TypePtr, ParquetError> {
    let group = Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![element]);
    let list = Type::group_type_builder(name).with_repetition(Repetition::REQUIRED);
    let list = list.with_logical_type(Some(LogicalType::List)).with_fields(vec![Arc::new(group.build()?)]);
    list.build().map(Arc::new)
}

/// The type of a column of numbers.
fn number(name: &str, number: NumberType) -> Result<TypePtr, ParquetError> {
    let integer = |bits, is_signed| Some(LogicalType::integer(bits, is_signed));
    let (physical, logical) = match number {
        NumberType::U8 => (Physical::INT32, integer(8, false)),
        NumberType::U16 => (Physical::INT32, integer(16, false)),
        NumberType::U32 => (Physical::INT32, integer(32, false)),
        NumberType::U64 => (Physical::INT64, integer(64, false)),
        NumberType::I8 => (Physical::INT32, integer(8, true)),
        NumberType::I16 => (Physical::INT32, integer(16, true)),
        NumberType::I32 => (Physical::INT32, None),
        NumberType::I64 => (Physical::INT64, None),
        NumberType::F32 => (Physical::FLOAT, None),
        NumberType::F64 => (Physical::DOUBLE, None),
    };
    leaf(name, physical, logical, Repetition::REQUIRED)
}

fn time(name: &str, repetition: Repetition) -> Result<TypePtr, ParquetError> {
    leaf(name, Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::NANOS)), repetition)
}

/// The type of a column of bytes that all have this length.
fn fixed(name: &str, len: usize) -> Result<TypePtr, ParquetError> {
    let length = i32::try_from(len)?;
    let fixed = Type::primitive_type_builder(name, Physical::FIXED_LEN_BYTE_ARRAY).with_length(length);
    fixed.with_repetition(Repetition::REQUIRED).build().map(Arc::new)
}

/// The number in a column of offsets or times: at most 2^63 - 1, which no offset reaches, and no time before the year 2262.
fn capped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A Parquet file that is being written.
pub(super) struct Parquet {
    writer: SerializedFileWriter<BufWriter<File>>,
    /// The fields of events; `None` for a topic of messages.
    fields: Option<Columns>,
    /// All columns, in the order of the schema.
    columns: Vec<Column>,
    rows: usize,
    /// Size of the values that wait, in bytes, about.
    bytes: usize,
    /// The most rows of a group.
    group_rows: usize,
}

impl Parquet {
    /// Begins a file of this topic's records: of messages, or of events with these fields.
    pub(super) fn new(
        file: File,
        topic: &RecordedTopic,
        fields: Option<Columns>,
        group_rows: usize,
    ) -> Result<Self, Failure> {
        let mut schema = vec![
            leaf("partition", Physical::INT32, None, Repetition::REQUIRED)?,
            leaf("offset", Physical::INT64, None, Repetition::REQUIRED)?,
            time("timestamp", Repetition::REQUIRED)?,
        ];
        let mut columns = vec![
            Column::required(Values::Int32(Vec::new())),
            Column::required(Values::Int64(Vec::new())),
            Column::required(Values::Int64(Vec::new())),
        ];
        match &fields {
            Some(fields) => {
                for ((_, kind, _), title) in fields.columns().zip(fields.titles(&FIRST)) {
                    let (of, column) = match kind {
                        // An array without elements has no values.
                        Kind::Skipped(_) | Kind::Bytes(0) | Kind::Numbers(_, 0) => continue,
                        Kind::Number(of) => (number(&title, of)?, Column::required(Values::of(of))),
                        Kind::Bytes(len) => (fixed(&title, len)?, Column::required(Values::Fixed(Vec::new()))),
                        Kind::Numbers(of, _) => (list(&title, number("element", of)?)?, Column::list(Values::of(of))),
                    };
                    schema.push(of);
                    columns.push(column);
                }
            }
            None => {
                let bytes = |name, repetition| leaf(name, Physical::BYTE_ARRAY, None, repetition);
                let name = leaf("name", Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::REQUIRED)?;
                let header = Type::group_type_builder("element").with_repetition(Repetition::REQUIRED);
                let header = header.with_fields(vec![name, bytes("value", Repetition::REQUIRED)?]).build()?;
                schema.extend([
                    time("time", Repetition::OPTIONAL)?,
                    bytes("key", Repetition::OPTIONAL)?,
                    bytes("value", Repetition::REQUIRED)?,
                    list("headers", Arc::new(header))?,
                ]);
                columns.extend([
                    Column::optional(Values::Int64(Vec::new())),
                    Column::optional(Values::Bytes(Vec::new())),
                    Column::required(Values::Bytes(Vec::new())),
                    Column::list(Values::Bytes(Vec::new())),
                    Column::list(Values::Bytes(Vec::new())),
                ]);
            }
        }
        let schema = Type::group_type_builder("schema").with_fields(schema).build()?;
        let about = |key: &str, value: &str| KeyValue::new(format!("slipring.{key}"), value.to_owned());
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("slipring version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![about("topic", &topic.name), about("layout", &topic.layout)]))
            .build();
        let out = BufWriter::with_capacity(1 << 18, file);
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { writer, fields, columns, rows: 0, bytes: 0, group_rows: group_rows.max(1) })
    }

    pub(super) fn write(&mut self, row: &Row) -> Done {
        if let (Some(fields), Content::Event(event)) = (&self.fields, &row.content)
            && event.len() != fields.size()
        {
            return Err(other_size(row, fields));
        }
        let (first, columns) = self.columns.split_at_mut(FIRST.len());
        let numbers = [i64::from(row.partition.partition), capped(row.offset), capped(row.time)];
        for (column, number) in first.iter_mut().zip(numbers) {
            column.values.push(NumberType::I64, &number.to_le_bytes());
        }
        self.bytes += 24;
        match (&self.fields, &row.content) {
            (Some(fields), content) => {
                let event = content.value();
                let mut columns = columns.iter_mut();
                for (_, kind, at) in fields.columns() {
                    let bytes = &event[at..at + kind.size()];
                    if bytes.is_empty() {
                        continue;
                    }
                    let Some(column) = columns.next() else { break };
                    match kind {
                        Kind::Number(of) => column.values.push(of, bytes),
                        Kind::Bytes(_) | Kind::Skipped(_) => {
                            column.values.push_bytes(bytes);
                            self.bytes += VALUE;
                        }
                        Kind::Numbers(of, _) => {
                            for (index, bytes) in bytes.chunks_exact(of.size()).enumerate() {
                                column.level(Some(index));
                                column.values.push(of, bytes);
                                self.bytes += 4;
                            }
                        }
                    }
                }
                self.bytes += event.len();
            }
            (None, content) => self.bytes += message(columns, content),
        }
        self.rows += 1;
        if self.rows >= self.group_rows || self.bytes >= GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    /// Writes the rows that wait as a group.
    fn end_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let none = || ParquetError::General("the schema has fewer columns".to_owned());
            let mut to = group.next_column()?.ok_or_else(none)?;
            column.write(&mut to)?;
            to.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// Writes the rows that wait, and the file's end.
    pub(super) fn finish(&mut self) -> Done {
        self.end_group()?;
        self.writer.finish()?;
        Ok(())
    }
}

/// Adds the parts of a message to its columns, and returns their size in bytes. A record that is no message, as damage
/// could leave it, is the value of one without key.
fn message(columns: &mut [Column], content: &Content) -> usize {
    let [time, key, value, names, values] = columns else { return 0 };
    let mut bytes = VALUE;
    let at = if let Content::Message(message) = content { message.timestamp() } else { None };
    time.level(at.map(|_| 0));
    if let Some(at) = at {
        time.values.push(NumberType::I64, &capped(at.as_nanos()).to_le_bytes());
    }
    key.level(content.key().map(|_| 0));
    if let Some(of) = content.key() {
        key.values.push_bytes(of);
        bytes += VALUE + of.len();
    }
    value.values.push_bytes(content.value());
    bytes += VALUE + content.value().len();
    let mut count = 0;
    for (name, of) in content.headers() {
        [(&mut *names, name), (&mut *values, of)].into_iter().for_each(|(column, bytes)| {
            column.level(Some(count));
            column.values.push_bytes(bytes);
        });
        bytes += 2 * VALUE + name.len() + of.len();
        count += 1;
    }
    if count == 0 {
        [names, values].into_iter().for_each(|column| column.level(None));
    }
    bytes
}

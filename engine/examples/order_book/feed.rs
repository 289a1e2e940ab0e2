//! Parses a feed: gzip or plain CSV to [`Order`]s, all of it before anything runs.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::num::NonZeroU64;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};
use flate2::read::MultiGzDecoder;
use fnv::FnvHasher;
use std::hash::Hasher;

use super::decimal::{self, Refused};
use super::order::{Action, Order, Side};

/// The columns that a feed must have, in this order.
pub const COLUMNS: [&str; 7] = ["id", "timestamp", "exchange_timestamp", "price", "volume", "action", "direction"];

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Prices are packed with a bit for the side.
const LARGEST_PRICE: u64 = u64::MAX >> 1;

/// Why a feed was refused. Each names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("{file}: can't be opened: {cause}")]
    Open { file: String, cause: io::Error },
    #[error("{file}: not a gzip file, although its name ends in .gz")]
    NotGzip { file: String },
    #[error("{file}: line {line}: the gzip data ends too early (truncated file)")]
    Truncated { file: String, line: u64 },
    #[error("{file}: line {line}: can't be read: {cause}")]
    Read { file: String, line: u64, cause: io::Error },
    #[error("{file}: line 1: wrong columns: expected `{expected}`, found `{found}`", expected = COLUMNS.join(","))]
    Columns { file: String, found: String },
    #[error("{file}: line {line}: {cause}")]
    Line { file: String, line: u64, cause: LineError },
    #[error("{file}: line 2: no events: there is nothing behind the line of columns")]
    Empty { file: String },
}

/// Why one line was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("expected {expected} fields, found {0}", expected = COLUMNS.len())]
    Fields(usize),
    #[error("column `{column}`: `{value}` is not a whole number that fits in 64 bits")]
    Integer { column: &'static str, value: String },
    #[error("column `{column}`: `{value}` is not a number of zero or more")]
    Number { column: &'static str, value: String },
    #[error("column `{column}`: `{value}` is finer than {decimals} decimals")]
    TooFine { column: &'static str, value: String, decimals: u32 },
    #[error("column `{column}`: `{value}` is too large")]
    TooLarge { column: &'static str, value: String },
    #[error("column `{column}`: `{value}` is none of {expected}")]
    Word { column: &'static str, value: String, expected: &'static str },
    #[error("the volumes of the file add up to more than 64 bits can count")]
    Sum,
}

/// A feed, parsed and checked.
#[derive(Debug)]
pub struct Feed {
    pub orders: Vec<Order>,
    /// How many rows the opening snapshot has.
    pub snapshot: u64,
    /// Rows without a price, rows without a volume.
    pub unpriced: u64,
    pub empty: u64,
    /// FNV-1a over all parsed rows: tells which feed this is.
    pub fingerprint: u64,
}

/// Reads the file at `path`: gzip by its first bytes, else plain CSV.
///
/// # Errors
/// [`FeedError`] for anything that is not a whole feed; no part of it is given back then.
pub fn read_file(path: &Path) -> Result<Feed, FeedError> {
    let file = path.display().to_string();
    let open = |cause| FeedError::Open { file: file.clone(), cause };
    if path.is_dir() {
        return Err(open(io::ErrorKind::IsADirectory.into()));
    }
    let reader = BufReader::new(File::open(path).map_err(open)?);
    let named_gz = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz"));
    read(reader, &file, named_gz)
}

/// Reads a feed from `reader`; `file` is its name in errors.
///
/// # Errors
/// As [`read_file`].
pub fn read(mut reader: impl Read, file: &str, must_be_gzip: bool) -> Result<Feed, FeedError> {
    let mut magic = Vec::new();
    let failed = |cause| FeedError::Read { file: file.to_string(), line: 1, cause };
    (&mut reader).take(2).read_to_end(&mut magic).map_err(failed)?;
    let gzip = magic == GZIP_MAGIC;
    let whole = io::Cursor::new(magic).chain(reader);
    match gzip {
        true => parse(MultiGzDecoder::new(whole), file),
        false if must_be_gzip => Err(FeedError::NotGzip { file: file.to_string() }),
        false => parse(whole, file),
    }
}

fn parse(reader: impl Read, file: &str) -> Result<Feed, FeedError> {
    let file = || file.to_string();
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader);
    let mut record = ByteRecord::new();
    let mut line = 1;
    let mut next = |record: &mut ByteRecord, line: &mut u64| -> Result<bool, FeedError> {
        let more = reader.read_byte_record(record);
        *line = match &more {
            Ok(true) => record.position().map_or(*line, |position| position.line()),
            _ => reader.position().line(),
        };
        more.map_err(|error| unreadable(error, file(), *line))
    };

    if !next(&mut record, &mut line)? || record.iter().ne(COLUMNS.map(str::as_bytes)) {
        let found: Vec<_> = record.iter().map(text).collect();
        let found = shorten(&found.join(","));
        return Err(FeedError::Columns { file: file(), found });
    }

    let mut orders: Vec<Order> = Vec::new();
    let (mut unpriced, mut empty, mut total) = (0, 0, 0_i64);
    while next(&mut record, &mut line)? {
        let refuse = |cause| FeedError::Line { file: file(), line, cause };
        let order = parse_line(&record, orders.len() as u64).map_err(refuse)?;
        // No level can ever hold more than all volumes together, so the book needs no checks.
        total = order
            .volume
            .map_or(Some(total), |volume| total.checked_add_unsigned(volume.get()))
            .ok_or_else(|| refuse(LineError::Sum))?;
        unpriced += u64::from(order.price.is_none());
        empty += u64::from(order.volume.is_none());
        orders.push(order);
    }
    if orders.is_empty() {
        return Err(FeedError::Empty { file: file() });
    }
    mark_batches(&mut orders);
    let snapshot = mark_snapshot(&mut orders);
    let fingerprint = fingerprint(&orders);
    Ok(Feed { orders, snapshot, unpriced, empty, fingerprint })
}

fn unreadable(error: csv::Error, file: String, line: u64) -> FeedError {
    match error.into_kind() {
        csv::ErrorKind::Io(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
            FeedError::Truncated { file, line }
        }
        csv::ErrorKind::Io(cause) => FeedError::Read { file, line, cause },
        other => FeedError::Read { file, line, cause: io::Error::other(format!("{other:?}")) },
    }
}

/// A batch is a run of rows with the same exchange time.
fn mark_batches(orders: &mut [Order]) {
    for at in 0..orders.len() {
        orders[at].ends_batch = orders.get(at + 1).is_none_or(|next| next.time_ms != orders[at].time_ms);
    }
}

/// The opening snapshot is the run of `created` rows at the head of the feed that share the first
/// row's exchange time. In the real feed these are 6,512 rows, which is also what the capture's own
/// notes say; its first live row has a later time.
fn mark_snapshot(orders: &mut [Order]) -> u64 {
    let first = orders.first().map(|order| order.time_ms);
    orders
        .iter_mut()
        .take_while(|order| order.action == Action::Created && Some(order.time_ms) == first)
        .map(|order| order.snapshot = true)
        .count() as u64
}

fn fingerprint(orders: &[Order]) -> u64 {
    let mut hasher = FnvHasher::default();
    for order in orders {
        let number = |number: Option<NonZeroU64>| number.map_or(0, NonZeroU64::get);
        for value in [
            order.id,
            order.time_ms,
            number(order.price),
            number(order.volume),
            (order.action as u64) << 1 | order.side as u64,
        ] {
            hasher.write(&value.to_le_bytes());
        }
    }
    hasher.finish()
}

fn parse_line(record: &ByteRecord, index: u64) -> Result<Order, LineError> {
    if record.len() != COLUMNS.len() {
        return Err(LineError::Fields(record.len()));
    }
    // Checked although nothing needs it: a line is sound as a whole or not at all.
    integer(record, 1)?;
    let (price, volume) = (number(record, 3, 2)?, number(record, 4, 8)?);
    if price > LARGEST_PRICE {
        return Err(LineError::TooLarge { column: COLUMNS[3], value: text(&record[3]) });
    }
    let word =
        |column: usize, expected| LineError::Word { column: COLUMNS[column], value: text(&record[column]), expected };
    Ok(Order {
        index,
        id: integer(record, 0)?,
        time_ms: integer(record, 2)?,
        price: NonZeroU64::new(price),
        volume: NonZeroU64::new(volume),
        action: match &record[5] {
            b"created" => Action::Created,
            b"changed" => Action::Changed,
            b"deleted" => Action::Deleted,
            _ => return Err(word(5, "created, changed, deleted")),
        },
        side: match &record[6] {
            b"bid" => Side::Bid,
            b"ask" => Side::Ask,
            _ => return Err(word(6, "bid, ask")),
        },
        snapshot: false,
        ends_batch: false,
    })
}

fn integer(record: &ByteRecord, column: usize) -> Result<u64, LineError> {
    decimal::whole(&record[column])
        .ok_or_else(|| LineError::Integer { column: COLUMNS[column], value: text(&record[column]) })
}

/// An empty field is zero, which stands for "none".
fn number(record: &ByteRecord, column: usize, decimals: u32) -> Result<u64, LineError> {
    let field = &record[column];
    if field.is_empty() {
        return Ok(0);
    }
    decimal::scaled(field, decimals).map_err(|refused| {
        let (column, value) = (COLUMNS[column], text(field));
        match refused {
            Refused::Malformed => LineError::Number { column, value },
            Refused::TooLarge => LineError::TooLarge { column, value },
            Refused::TooFine => LineError::TooFine { column, value, decimals },
        }
    })
}

fn text(field: &[u8]) -> String {
    shorten(&String::from_utf8_lossy(field))
}

/// Keeps an error on one readable line, whatever was in the file.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    const HEAD: &str = "id,timestamp,exchange_timestamp,price,volume,action,direction\n";

    fn parse_text(text: &str) -> Result<Feed, FeedError> {
        read(text.as_bytes(), "some.csv", false)
    }

    fn refused(line: &str) -> String {
        let text = format!("{HEAD}1,1,1,10.0,1.0,created,bid\n{line}\n");
        parse_text(&text).unwrap_err().to_string()
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_feed_is_parsed_without_floats() {
        let feed = parse_text(&format!(
            "{HEAD}7,9,5,78318.0,7.18e-06,created,bid\n8,9,5,0.0,1500.0,created,ask\n\
             7,9,6,78318.25,0.0,changed,bid\n7,9,6,,,deleted,bid\n"
        ))
        .unwrap();
        let [first, market, changed, deleted] = feed.orders[..] else { panic!("{feed:?}") };
        assert_eq!(first.price, NonZeroU64::new(7_831_800));
        assert_eq!(first.volume, NonZeroU64::new(718));
        assert_eq!((first.id, first.time_ms, first.index), (7, 5, 0));
        assert_eq!(market.price, None);
        assert_eq!(market.volume, NonZeroU64::new(150_000_000_000));
        assert_eq!((market.side, market.action), (Side::Ask, Action::Created));
        assert_eq!(changed.price, NonZeroU64::new(7_831_825));
        assert_eq!((changed.volume, changed.action), (None, Action::Changed));
        assert_eq!((deleted.price, deleted.volume), (None, None));
        assert_eq!((feed.snapshot, feed.unpriced, feed.empty), (2, 2, 2));
        let ends: Vec<_> = feed.orders.iter().map(|order| order.ends_batch).collect();
        assert_eq!(ends, [false, true, false, true]);
    }

    #[test]
    fn the_snapshot_ends_with_the_first_other_time_or_action() {
        let feed = parse_text(&format!("{HEAD}1,1,5,1,1,created,bid\n1,1,5,1,1,deleted,bid\n2,1,5,1,1,created,bid\n"));
        assert_eq!(feed.unwrap().snapshot, 1);
    }

    #[test]
    fn bad_lines_are_named() {
        let cases = [
            ("1,1,1,10.0", "some.csv: line 3: expected 7 fields, found 4"),
            ("x,1,1,10.0,1.0,created,bid", "column `id`: `x`"),
            ("-1,1,1,10.0,1.0,created,bid", "column `id`: `-1`"),
            ("1,1.5,1,10.0,1.0,created,bid", "column `timestamp`: `1.5`"),
            ("1,1,,10.0,1.0,created,bid", "column `exchange_timestamp`"),
            ("1,1,1,ten,1.0,created,bid", "column `price`: `ten` is not"),
            ("1,1,1,-1.0,1.0,created,bid", "column `price`: `-1.0` is not"),
            ("1,1,1,1.005,1.0,created,bid", "is finer than 2 decimals"),
            ("1,1,1,1.0,1e-9,created,bid", "is finer than 8 decimals"),
            ("1,1,1,1.0,1e,created,bid", "`1e` is not a number"),
            ("1,1,1,1.0,.,created,bid", "`.` is not a number"),
            ("1,1,1,1e30,1.0,created,bid", "`1e30` is too large"),
            ("1,1,1,1e400000,1.0,created,bid", "is too large"),
            ("1,1,1,1.0,9e10,created,bid", "some.csv: line 3: the volumes"),
            ("1,1,1,nan,1.0,created,bid", "`nan` is not a number"),
            ("1,1,1,1.0,1.0,moved,bid", "`moved` is none of created"),
            ("1,1,1,1.0,1.0,created,left", "`left` is none of bid, ask"),
        ];
        for (line, wanted) in cases {
            let line = match line.contains("9e10") {
                true => "1,1,1,1.0,9.22e10,created,bid\n1,1,1,1.0,9.22e10,created,bid",
                false => line,
            };
            let found = refused(line);
            let wanted = wanted.replace("line 3: the", "line 4: the");
            assert!(found.contains(&wanted), "{line}: {found}");
            assert!(found.starts_with("some.csv: line "), "{found}");
        }
    }

    #[test]
    fn files_that_are_no_feed_are_named() {
        let wrong = |text: &str| parse_text(text).unwrap_err().to_string();
        assert!(wrong("").contains("line 1: wrong columns"));
        assert!(wrong("a,b\n1,2\n").contains("found `a,b`"));
        assert!(wrong(HEAD).contains("line 2: no events"));
        let found = read(HEAD.as_bytes(), "a.csv.gz", true).unwrap_err();
        assert_eq!(found.to_string(), "a.csv.gz: not a gzip file, although its name ends in .gz");
        let found = read_file(Path::new("no such.csv.gz")).unwrap_err();
        assert!(found.to_string().starts_with("no such.csv.gz: can't be opened: "));
    }

    #[test]
    fn a_gzip_file_cut_anywhere_is_refused() {
        let mut text = HEAD.to_string();
        for id in 0..300 {
            text += &format!("{id},1,{id},10.0,1.0,created,bid\n");
        }
        let whole = gzip(&text);
        assert_eq!(read(&whole[..], "f", true).unwrap().orders.len(), 300);
        for len in 2..whole.len() {
            let found = read(&whole[..len], "f", true).unwrap_err();
            assert!(matches!(found, FeedError::Truncated { .. }), "{len}: {found}");
        }
        for at in [10, 40, whole.len() - 6] {
            let mut bad = whole.clone();
            bad[at] ^= 0x55;
            read(&bad[..], "f", true).unwrap_err();
        }
    }
}

//! `slipring journal export` of typed columns: what was written is read back with the type of each column, in all formats.
#![cfg(target_os = "linux")]

use parquet::basic::{LogicalType, TimeUnit, Type as Physical};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use slipring::journal::Options;
use slipring::journal::storage::Disk;
use slipring::{Engine, Message, Persist, Record, topic::Unreadable};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

slipring::plain_event! {
    /// A field of each type, and names that the file's own columns have.
    #[derive(Debug, Default, PartialEq)]
    struct Quote {
        id: u64,
        px: i64,
        mid: f64,
        offset: u64,
        depth: [i32; 3],
        seen: u32,
        change: i32,
        ratio: f32,
        levels: u16,
        skew: i16,
        venue: [u8; 4],
        flags: u8,
        side: i8,
        unused: [u8; 6],
    }
}

fn quote(number: u64) -> Quote {
    Quote {
        id: u64::MAX - number,
        px: -(number as i64),
        mid: number as f64 / 2.0,
        offset: 7,
        depth: [number as i32, i32::MIN, -1],
        seen: u32::MAX,
        change: i32::MIN,
        ratio: 0.25,
        levels: u16::MAX,
        skew: i16::MIN,
        venue: if number.is_multiple_of(2) { *b"XETR" } else { [0xff, 0, 1, 2] },
        flags: 200,
        side: -1,
        unused: [0; 6],
    }
}

/// An event with bytes of its own.
#[derive(Default)]
struct Note(u8);

impl Persist for Note {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0 = *bytes.first().ok_or(Unreadable("a note has a byte"))?;
        Ok(())
    }

    fn layout() -> String {
        "note 1".to_owned()
    }
}

/// A journal with `quotes` in two partitions, `words`, `empty`, `notes` and `pairs`, whose fields have no names.
fn journal(quotes: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal(&dir).journal_options(options).build().unwrap();
    let all = engine.topic::<Quote>("quotes").partitions(2).durable().create().unwrap();
    let words = engine.topic::<Message>("words").durable().create().unwrap();
    engine.topic::<Quote>("empty").durable().create().unwrap();
    let notes = engine.topic::<Note>("notes").durable().create().unwrap();
    let pairs = engine.topic::<[u32; 2]>("pairs").durable().create().unwrap();
    let mut producer = all.producer().create().unwrap();
    (0..quotes).for_each(|index| _ = producer.publish_to((index % 2) as u32, |to| *to = quote(index)).unwrap());
    let mut sender = words.producer().create().unwrap();
    sender.send(Record::new("one").key("k").header("a", "1").header("a", &[0xff_u8])).unwrap();
    sender.send(Record::new(&[0xfe_u8])).unwrap();
    notes.producer().create().unwrap().publish(|note| note.0 = 1).unwrap();
    pairs.producer().create().unwrap().publish(|pair| *pair = [1, 2]).unwrap();
    drop((producer, sender, all, words, notes, pairs));
    assert!(engine.shutdown(LONG).is_complete());
    (folder, dir)
}

fn export(dir: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    let Output { status, stdout, stderr } = command.args(["journal", "export"]).arg(dir).args(more).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn parquet(dir: &Path, topic: &str, more: &[&str]) -> (SerializedFileReader<File>, PathBuf) {
    let file = dir.with_file_name(format!("{topic}.parquet"));
    let _ = fs::remove_file(&file);
    let to = ["--topic", topic, "--format", "parquet", "-o", file.to_str().unwrap()];
    let (code, out, err) = export(dir, &[&to, more].concat());
    assert_eq!((code, &*out), (0, ""), "{err}");
    (SerializedFileReader::new(File::open(&file).unwrap()).unwrap(), file)
}

fn rows(file: &SerializedFileReader<File>) -> Vec<Row> {
    file.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

fn field<'r>(row: &'r Row, name: &str) -> &'r Field {
    row.get_column_iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}: {row}")).1
}

/// The names of the files beside the journal.
fn beside(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir.parent().unwrap()).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<_> = files.map(|name| name.into_string().unwrap()).filter(|name| name != "journal").collect();
    names.sort();
    names
}

#[test]
fn each_field_is_a_column_of_its_type_with_what_was_written() {
    let (_folder, dir) = journal(100);
    let (file, _) = parquet(&dir, "quotes", &["--row-group", "30"]);
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let integer = |bits, signed| Some(LogicalType::integer(bits, signed));
    let nanos = Some(LogicalType::timestamp(true, TimeUnit::NANOS));
    let expected = [
        ("partition", Physical::INT32, None),
        ("offset", Physical::INT64, None),
        ("timestamp", Physical::INT64, nanos),
        ("id", Physical::INT64, integer(64, false)),
        ("px", Physical::INT64, None),
        ("mid", Physical::DOUBLE, None),
        ("event_offset", Physical::INT64, integer(64, false)),
        ("depth.list.element", Physical::INT32, None),
        ("seen", Physical::INT32, integer(32, false)),
        ("change", Physical::INT32, None),
        ("ratio", Physical::FLOAT, None),
        ("levels", Physical::INT32, integer(16, false)),
        ("skew", Physical::INT32, integer(16, true)),
        ("venue", Physical::FIXED_LEN_BYTE_ARRAY, None),
        ("flags", Physical::INT32, integer(8, false)),
        ("side", Physical::INT32, integer(8, true)),
        ("unused", Physical::FIXED_LEN_BYTE_ARRAY, None),
    ];
    assert_eq!(schema.num_columns(), expected.len());
    for (index, (name, physical, logical)) in expected.into_iter().enumerate() {
        let column = schema.column(index);
        assert_eq!((&*column.path().string(), column.physical_type()), (name, physical));
        assert_eq!(column.logical_type_ref(), logical.as_ref(), "{name}");
    }
    let about = file.metadata().file_metadata().key_value_metadata().unwrap();
    let about: Vec<_> = about.iter().map(|it| (it.key.as_str(), it.value.clone().unwrap())).collect();
    assert_eq!(about, [("slipring.topic", "quotes".to_owned()), ("slipring.layout", Quote::layout())]);
    assert_eq!(file.metadata().num_row_groups(), 4, "of 30 rows each, and the rest");

    let rows = rows(&file);
    assert_eq!(rows.len(), 100);
    let mut next = [0, 0];
    for row in &rows {
        let (&Field::Int(partition), &Field::Long(offset)) = (field(row, "partition"), field(row, "offset")) else {
            panic!("{row}")
        };
        assert_eq!(offset, next[partition as usize], "each partition in its order");
        next[partition as usize] += 1;
        let wanted = quote(offset as u64 * 2 + partition as u64);
        assert_eq!(field(row, "id"), &Field::ULong(wanted.id));
        assert_eq!(field(row, "px"), &Field::Long(wanted.px));
        assert_eq!(field(row, "mid"), &Field::Double(wanted.mid));
        assert_eq!(field(row, "event_offset"), &Field::ULong(wanted.offset));
        let Field::ListInternal(depth) = field(row, "depth") else { panic!("{row}") };
        assert_eq!(depth.elements(), wanted.depth.map(Field::Int));
        assert_eq!(field(row, "seen"), &Field::UInt(wanted.seen));
        assert_eq!(field(row, "change"), &Field::Int(wanted.change));
        assert_eq!(field(row, "ratio"), &Field::Float(wanted.ratio));
        assert_eq!(field(row, "levels"), &Field::UShort(wanted.levels));
        assert_eq!(field(row, "skew"), &Field::Short(wanted.skew));
        assert_eq!(field(row, "venue"), &Field::Bytes(wanted.venue.to_vec().into()));
        assert_eq!(field(row, "flags"), &Field::UByte(wanted.flags));
        assert_eq!(field(row, "side"), &Field::Byte(wanted.side));
    }
    assert_eq!(next, [50, 50]);
    assert_eq!(beside(&dir), ["quotes.parquet"], "nothing else is left");
}

#[test]
fn messages_have_time_key_value_and_headers() {
    let (_folder, dir) = journal(0);
    let (file, _) = parquet(&dir, "words", &[]);
    let rows = rows(&file);
    let bytes = |bytes: &[u8]| Field::Bytes(bytes.to_vec().into());
    assert_eq!((field(&rows[0], "key"), field(&rows[0], "value")), (&bytes(b"k"), &bytes(b"one")));
    let Field::ListInternal(headers) = field(&rows[0], "headers") else { panic!("{}", rows[0]) };
    let headers: Vec<_> = headers.elements().iter().collect();
    let expected: [(&str, &[u8]); 2] = [("a", b"1"), ("a", &[0xff])];
    for (header, (name, value)) in headers.iter().zip(expected) {
        let Field::Group(header) = header else { panic!("{header}") };
        assert_eq!((field(header, "name"), field(header, "value")), (&Field::Str(name.to_owned()), &bytes(value)));
    }
    assert_eq!(headers.len(), 2);
    assert_eq!((field(&rows[1], "key"), field(&rows[1], "value")), (&Field::Null, &bytes(&[0xfe])));
    let Field::ListInternal(none) = field(&rows[1], "headers") else { panic!("{}", rows[1]) };
    assert_eq!((none.len(), rows.len()), (0, 2));
    let times: Vec<_> = rows.iter().map(|row| (field(row, "time"), field(row, "timestamp"))).collect();
    assert!(times.iter().all(|(_, at)| matches!(at, Field::Long(1..))), "{times:?}");
}

#[test]
fn an_empty_topic_is_a_file_without_rows_and_a_gap_is_passed_over() {
    let (_folder, dir) = journal(10);
    let (file, _) = parquet(&dir, "empty", &[]);
    assert_eq!((file.metadata().num_row_groups(), rows(&file).len()), (0, 0));
    assert_eq!(file.metadata().file_metadata().schema_descr().num_columns(), 17);
    // The offsets that the first opening had reserved are left out by the second one if it is killed.
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal(&dir).journal_options(options.clone()).build().unwrap();
    let again = engine.topic::<Quote>("quotes").partitions(2).durable().create().unwrap();
    let mut producer = again.producer().acknowledge(slipring::Level::Durable).create().unwrap();
    producer.publish_to(0, |to| *to = quote(1)).unwrap();
    let copy = dir.with_file_name("killed");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&dir).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    drop((producer, again));
    engine.shutdown(LONG);
    let engine = Engine::builder().journal(&copy).journal_options(options).build().unwrap();
    let again = engine.topic::<Quote>("quotes").partitions(2).durable().create().unwrap();
    again.producer().create().unwrap().publish_to(0, |to| *to = quote(2)).unwrap();
    drop(again);
    engine.shutdown(LONG);
    let (file, _) = parquet(&copy, "quotes", &["--partition", "0"]);
    let offsets: Vec<i64> = rows(&file)
        .iter()
        .map(|row| if let Field::Long(offset) = field(row, "offset") { *offset } else { panic!("{row}") })
        .collect();
    assert_eq!((&offsets[..6], offsets.len()), (&[0, 1, 2, 3, 4, 5][..], 7));
    assert!(offsets[6] > 100, "{offsets:?}");
}

#[test]
fn what_cannot_be_a_file_is_refused_and_leaves_none() {
    let (_folder, dir) = journal(10);
    let file = dir.with_file_name("out.parquet");
    let out = file.to_str().unwrap();
    let to = |more: &[&str]| export(&dir, &[&["--format", "parquet", "-o", out], more].concat());
    for (more, told) in [
        (&["--topic", "notes"][..], "\"note 1\", which names no fields"),
        (&["--topic", "pairs"], "\"plain data of 8 bytes\", which names no fields"),
        (&[], "name it with `--topic`"),
        (&["--topic", "nobody"], "no topic"),
        (&["--topic", "words", "--columns", "a:u8"], "has messages"),
        (&["--topic", "quotes", "--columns", "a:u8"], "the columns have 1"),
        (&["--topic", "notes", "--columns", "a:u16"], "has 1 bytes, and the columns have 2"),
    ] {
        let (code, stdout, err) = to(more);
        assert!(code == 1 && stdout.is_empty() && err.contains(told), "{more:?}: {err}");
        assert_eq!(beside(&dir), [""; 0], "{more:?}");
    }
    assert_eq!(export(&dir, &["--topic", "quotes", "--format", "parquet"]).0, 2, "where to?");
    // Fields that are named by hand.
    let (code, _, err) = to(&["--topic", "pairs", "--columns", "first:u32,_:4"]);
    assert_eq!(code, 0, "{err}");
    let before = fs::read(&file).unwrap();
    let (code, _, err) = to(&["--topic", "quotes"]);
    assert!(code == 1 && err.contains("it is there already"), "{err}");
    assert_eq!((fs::read(&file).unwrap(), beside(&dir)), (before, vec!["out.parquet".to_owned()]));
    let nowhere = dir.join("nowhere/out.parquet");
    let (code, _, err) = export(&dir, &["--topic", "quotes", "--format", "parquet", "-o", nowhere.to_str().unwrap()]);
    assert!(code == 1 && err.contains("cannot make") && err.contains("nowhere"), "{err}");
}

#[test]
fn a_full_disk_leaves_no_file_in_any_format() {
    let (_folder, dir) = journal(4000);
    for format in ["parquet", "csv", "jsonl"] {
        let file = dir.with_file_name("out");
        // Files of more than 8 KiB are refused, as a full disk refuses them; the signal that would end the program is ignored.
        let command = format!(
            "trap '' XFSZ; ulimit -f 8; exec {:?} journal export {dir:?} --topic quotes --format {format} -o {file:?}",
            env!("CARGO_BIN_EXE_slipring")
        );
        let ended = Command::new("bash").args(["-c", &command]).output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{format}: {told}");
        assert!(told.contains("File too large"), "{format}: {told}");
        assert_eq!(beside(&dir), [""; 0], "{format}");
    }
}

#[test]
fn what_stands_before_damage_is_in_the_file_and_the_code_tells() {
    let (_folder, dir) = journal(9000);
    let disk = Disk::new(&dir);
    let survey = slipring::journal::inspect(std::sync::Arc::new(disk), false).unwrap();
    let segments = survey.segments();
    assert!(segments.len() > 2, "{}", segments.len());
    let middle = dir.join(format!("{:020}.segment", segments[1].header.number));
    let mut bytes = fs::read(&middle).unwrap();
    let at = segments[1].end as usize / 2;
    bytes[at] ^= 1;
    fs::write(&middle, bytes).unwrap();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "index") {
            fs::remove_file(path).unwrap();
        }
    }
    let file = dir.with_file_name("out.parquet");
    let (code, _, err) = export(&dir, &["--topic", "quotes", "--format", "parquet", "-o", file.to_str().unwrap()]);
    assert_eq!(code, 3, "{err}");
    let found = rows(&SerializedFileReader::new(File::open(&file).unwrap()).unwrap()).len();
    assert!((1..9000).contains(&found), "{found}");
    assert_eq!(beside(&dir), ["out.parquet"]);
}

#[test]
fn csv_and_json_take_the_fields_from_the_catalogue() {
    let (_folder, dir) = journal(2);
    let (code, out, err) = export(&dir, &["--topic", "quotes", "--format", "csv"]);
    assert_eq!(code, 0, "{err}");
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let titles = "topic,partition,offset,time_ns,id,px,mid,event_offset,depth,seen,change,ratio,levels,skew,venue,flags,side,unused";
    assert_eq!(lines[2], titles);
    assert!(lines[0].starts_with("quotes,0,0,"), "{out}");
    let end = "18446744073709551615,0,0.0,7,0;-2147483648;-1,4294967295,-2147483648,0.25,65535,-32768,XETR,200,-1,0x000000000000";
    assert!(lines[0].ends_with(end), "{}", lines[0]);
    assert!(lines[1].contains(",0xff000102,"), "{}", lines[1]);
    let (code, out, err) = export(&dir, &[]);
    assert_eq!(code, 0, "{err}");
    let quotes: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |topic: &str| quotes.iter().find(|record| record["topic"] == topic && record["partition"] == 0).unwrap();
    assert_eq!(of("quotes")["event"]["depth"], serde_json::json!([0, i32::MIN, -1]));
    assert_eq!(
        (&of("quotes")["event"]["venue"], &of("pairs")["value_hex"]),
        (&"XETR".into(), &"0100000002000000".into())
    );
    // The fields of the command line come before those of the catalogue.
    let (_, out, _) = export(&dir, &["--topic", "quotes", "--format", "csv", "--columns", "all:u8[72]"]);
    assert!(out.starts_with("topic,partition,offset,time_ns,all\n"), "{out}");
    let shown = |command: &[&str]| {
        let Output { status, stdout, stderr } =
            Command::new(env!("CARGO_BIN_EXE_slipring")).args(command).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    };
    let dir = dir.to_str().unwrap();
    let cat = shown(&["journal", "cat", dir, "--topic", "quotes", "--partition", "0"]);
    assert!(cat.contains(" id=18446744073709551615 px=0 mid=0.0 ") && cat.contains(" venue=XETR "), "{cat}");
    let described = shown(&["topic", "describe", dir, "quotes"]);
    assert!(described.contains("depth") && described.contains("i32[3]"), "{described}");
    let described: serde_json::Value =
        serde_json::from_str(&shown(&["topic", "describe", dir, "quotes", "--json"])).unwrap();
    assert_eq!(described["fields"][4], serde_json::json!({ "name": "depth", "type": "i32", "len": 3, "offset": 32 }));
}

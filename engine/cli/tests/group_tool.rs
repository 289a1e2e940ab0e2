//! `slipring group` and `slipring topic` on directories that engines have left, and on one that is open.

use slipring::journal::storage::Storage;
use slipring::{Engine, Level, subscriber::StartAt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

#[path = "../../tests/common/damage.rs"]
mod damage;

const LONG: Duration = Duration::from_secs(60);

/// The exit code, standard output and standard error.
fn run(verb: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    of("group", verb, dir, more)
}

fn of(noun: &str, verb: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    let Output { status, stdout, stderr } = command.args([noun, verb]).arg(dir).args(more).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|cause| panic!("{cause}: {text}"))
}

/// Two topics. `billing` has read a part of one, `audit` all of both.
fn written(dir: &Path) {
    let engine = Engine::open(dir).unwrap();
    let orders = engine.topic::<u64>("orders").partitions(2).durable().create().unwrap();
    let returns = engine.topic::<u64>("returns").durable().create().unwrap();
    let mut audit = engine.group("audit").topics([&orders, &returns]).join().unwrap();
    let mut billing = orders.group("billing").join().unwrap();
    let (mut into_orders, mut into_returns) =
        (orders.producer().create().unwrap(), returns.producer().create().unwrap());
    for value in 0..10 {
        into_orders.publish_to(0, |event| *event = value).unwrap();
        into_orders.publish_to(1, |event| *event = value).unwrap();
        into_returns.publish(|event| *event = value).unwrap().wait(Level::Durable).unwrap();
    }
    let mut left = 30;
    while left > 0 {
        let batch = audit.poll(LONG).unwrap().unwrap();
        left -= batch.len();
        batch.commit().unwrap();
    }
    let mut batch = billing.poll(LONG).unwrap().unwrap();
    let first = batch.iter().next().unwrap().1.offset;
    batch.commit_to_with_metadata(first + 4, b"row 4").unwrap();
    drop(batch);
    drop((audit, billing, into_orders, into_returns));
    assert_eq!(engine.shutdown(LONG).journal, Some(Ok(())));
}

fn committed(dir: &Path, group: &str) -> Vec<(String, u64, u64)> {
    let (code, out, err) = run("describe", dir, &[group, "--json"]);
    assert_eq!((code, &*err), (0, ""));
    let listed = json(&out)["partitions"].as_array().unwrap().clone();
    let stands = |it: &serde_json::Value| {
        let topic = it["topic"].as_str().unwrap().to_owned();
        (topic, it["partition"].as_u64().unwrap(), it["committed"].as_u64().unwrap())
    };
    listed.iter().map(stands).collect()
}

#[test]
fn groups_are_listed_described_and_moved() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    written(&dir);
    let (code, out, err) = run("ls", &dir, &[]);
    assert_eq!((code, &*err), (0, ""));
    assert!(out.lines().count() == 3 && out.contains("audit") && out.contains("orders, returns"), "{out}");
    let (_, out, _) = run("ls", &dir, &["--json"]);
    let listed = json(&out);
    assert_eq!(listed["groups"][0]["group"], "audit");
    assert_eq!((&listed["groups"][0]["lag"], &listed["groups"][1]["lag"]), (&0.into(), &16.into()));
    let (_, out, _) = run("describe", &dir, &["billing"]);
    assert!(out.lines().count() == 3 && out.contains("metadata row 4"), "{out}");
    let described = json(&run("describe", &dir, &["billing", "--json"]).1);
    assert!(described["partitions"].as_array().unwrap().iter().any(|it| it["metadata"] == "row 4"), "{described}");
    assert_eq!(committed(&dir, "billing").iter().map(|(.., at)| at).sum::<u64>(), 4);

    // A dry run.
    let (code, out, _) = run("reset", &dir, &["billing", "--to", "latest", "--dry-run"]);
    assert!(code == 0 && out.contains("nothing was changed"), "{out}");
    assert_eq!(committed(&dir, "billing").iter().map(|(.., at)| at).sum::<u64>(), 4);

    let (code, out, err) =
        run("reset", &dir, &["billing", "--to", "7", "--topic", "orders", "--partition", "1", "--json"]);
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(json(&out)["partitions"][0]["to"], 7);
    assert_eq!(committed(&dir, "billing")[1], ("orders".to_owned(), 1, 7));
    // The group gets a committed offset in a topic that it has never read.
    run("reset", &dir, &["billing", "--to", "latest", "--topic", "returns"]);
    assert_eq!(committed(&dir, "billing")[2], ("returns".to_owned(), 0, 10));
    run("reset", &dir, &["audit", "--to", "earliest"]);
    assert!(committed(&dir, "audit").iter().all(|(.., at)| *at == 0));
    let (code, ..) = run("reset", &dir, &["audit", "--to", "2001-01-01T00:00:00Z", "--topic", "orders"]);
    assert_eq!((code, committed(&dir, "audit")[0].2), (0, 0));
    run("reset", &dir, &["audit", "--to", "2200-01-01T00:00:00Z", "--topic", "orders"]);
    assert_eq!(committed(&dir, "audit")[0].2, 10);

    // An engine goes on there. Its epochs are higher than the one that the tool wrote.
    let engine = Engine::open(&dir).unwrap();
    let groups = engine.groups();
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["audit", "billing"], "also those that nobody has joined");
    let orders = engine.topic::<u64>("orders").partitions(2).durable().create().unwrap();
    let mut billing = orders.group("billing").start(StartAt::Committed).join().unwrap();
    let mut seen = Vec::new();
    while !seen.iter().any(|(partition, value)| (*partition, *value) == (1, 9)) {
        let batch = billing.poll(LONG).unwrap().unwrap();
        seen.extend(batch.iter().map(|(value, at)| (at.partition, *value)));
        batch.commit().unwrap();
    }
    assert!(seen.iter().filter(|(partition, _)| *partition == 1).map(|(_, value)| *value).eq(7..10), "{seen:?}");
    assert_eq!(engine.groups().len(), 2);

    let (code, _, err) = run("reset", &dir, &["billing", "--to", "earliest"]);
    assert!(code == 1 && err.contains("open in"), "{err}");
    let (code, out, _) = run("ls", &dir, &[]);
    assert!(code == 0 && out.contains("billing"), "looking is allowed: {out}");
    drop(billing);
    engine.shutdown(LONG);
    let (code, out, _) = run("forget", &dir, &["audit"]);
    assert!(code == 0 && out.contains("audit"), "{out}");
    assert_eq!(run("describe", &dir, &["audit"]).0, 1);
}

#[test]
fn what_is_not_there_is_an_error_that_says_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    written(&dir);
    for (arguments, code, told) in [
        (&["nobody", "--to", "latest"][..], 1, "group audit, group billing"),
        (&["billing", "--to", "latest", "--topic", "nothing"], 1, "orders, returns"),
        (&["billing", "--to", "latest", "--topic", "orders", "--partition", "2"], 1, "it has 2"),
        (&["billing", "--to", "11", "--topic", "orders"], 1, "up to, not including, 10"),
        (&["billing", "--to", "sometime"], 2, "earliest"),
        (&["billing", "--to", "latest", "--partition", "1"], 2, "--topic"),
        (&["billing"], 2, "--to"),
        (&["billing", "--to-earliest", "--to-latest"], 2, "--to-latest"),
        (&["billing", "--to-offset", "11"], 1, "up to, not including, 10"),
        (&["billing", "--to-datetime", "latest"], 2, "a time such as"),
    ] {
        let (found, out, err) = run("reset", &dir, arguments);
        assert!((found, &*out) == (code, "") && err.contains(told), "{arguments:?}: {found} {out} {err}");
    }
    assert_eq!(committed(&dir, "billing").iter().map(|(.., at)| at).sum::<u64>(), 4, "nothing was moved");
    let (code, _, err) = run("describe", &dir, &["nobody"]);
    assert!(code == 1 && err.contains("group audit, group billing"), "{err}");
    let (code, _, err) = run("ls", folder.path(), &[]);
    assert!(code == 1 && err.contains("no journal"), "{err}");
}

#[test]
fn transforms_are_listed_described_and_moved() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    {
        let engine = Engine::open(&dir).unwrap();
        let orders = engine.topic::<u64>("orders").durable().create().unwrap();
        orders.producer().create().unwrap().publish_batch(10, |index, order| *order = index as u64).unwrap();
        for (name, steps) in [("double", 2), ("copy", 1)] {
            let mut transform = orders.transform(name).batch(3).open().unwrap();
            for _ in 0..steps {
                assert_eq!(transform.step(LONG, |_, _, _| Ok::<_, String>(())).unwrap(), Some(3));
            }
        }
        assert_eq!(
            engine.transforms().iter().map(|it| (&*it.name, it.lag())).collect::<Vec<_>>(),
            [("copy", 7), ("double", 4)]
        );
        let mut copy = orders.group("copy").join().unwrap();
        let batch = copy.poll(LONG).unwrap().unwrap();
        assert_eq!(batch.len(), 10);
        batch.commit().unwrap();
        drop(copy);
        assert_eq!(engine.shutdown(LONG).journal, Some(Ok(())));
    }
    let (_, out, _) = run("ls", &dir, &["--json"]);
    let listed: Vec<_> = json(&out)["groups"].as_array().unwrap().clone();
    let listed: Vec<_> =
        listed.iter().map(|it| (it["group"].as_str(), it["kind"].as_str(), it["lag"].as_u64())).collect();
    let known = [("copy", "group", 0), ("copy", "transform", 7), ("double", "transform", 4)];
    assert_eq!(listed, known.map(|(name, kind, lag)| (Some(name), Some(kind), Some(lag))));
    let (code, out, _) = run("ls", &dir, &[]);
    assert!(code == 0 && out.lines().count() == 4 && out.contains("transform"), "{out}");
    assert_eq!(committed(&dir, "double"), [("orders".to_owned(), 0, 6)]);
    for arguments in [&["copy"][..], &["copy", "--json"]] {
        let (code, _, err) = run("describe", &dir, arguments);
        assert!(code == 1 && err.contains("--kind transform"), "{err}");
    }
    let (code, out, _) = run("describe", &dir, &["copy", "--kind", "transform", "--json"]);
    assert_eq!((code, json(&out)["partitions"][0]["lag"].as_u64()), (0, Some(7)));
    let (code, _, err) = run("reset", &dir, &["double", "--kind", "group", "--to", "earliest"]);
    assert!(code == 1 && err.contains("no group") && err.contains("transform double"), "{err}");

    assert_eq!(run("reset", &dir, &["double", "--to", "8"]).0, 0);
    assert_eq!(run("forget", &dir, &["copy", "--kind", "transform"]).0, 0);
    assert_eq!(committed(&dir, "copy"), [("orders".to_owned(), 0, 10)], "the group is still there");
    let engine = Engine::open(&dir).unwrap();
    assert_eq!(engine.transforms().len(), 1, "also before anybody has opened it");
    let orders = engine.topic::<u64>("orders").durable().create().unwrap();
    for (name, next) in [("double", 8), ("copy", 0)] {
        let mut transform = orders.transform(name).open().unwrap();
        let mut first = None;
        let see = |order: &u64, _: slipring::subscriber::At, _: &mut slipring::transaction::Transaction| {
            first.get_or_insert(*order);
            Ok::<_, String>(())
        };
        transform.step(LONG, see).unwrap();
        assert_eq!(first, Some(next), "{name}");
    }
    engine.shutdown(LONG);
}

/// The reset once failed at a gap of another partition.
#[test]
fn a_group_is_moved_by_time_over_gaps_and_what_it_was_told_is_listed_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    // Partition 1 has lost its first record, before which it had none.
    let disk = damage::damaged(&[(1, 0), (1, 5)]);
    std::fs::create_dir(&dir).unwrap();
    for name in disk.list().unwrap() {
        std::fs::write(dir.join(&name), disk.contents(&name).unwrap()).unwrap();
    }
    let engine = Engine::open(&dir).unwrap();
    let mut member = damage::ticks(&engine).group("billing").join().unwrap();
    let (mut told, mut read) = (0, 0);
    while read < 78 || told < 2 {
        match member.poll(LONG) {
            Ok(Some(batch)) => {
                read += batch.len();
                batch.commit_durable().unwrap();
            }
            Err(slipring::group::GroupError::Gap { .. }) => told += 1,
            other => panic!("{other:?}"),
        }
    }
    drop(member);
    engine.shutdown(LONG);
    drop(engine);

    let (code, out, err) = run("ls", &dir, &["--json"]);
    assert_eq!((code, &json(&out)["groups"][0]["unacknowledged_gaps"]), (0, &2.into()), "{out}{err}");
    assert!(run("ls", &dir, &[]).1.contains("2 gaps were reported"));
    let (_, out, _) = run("describe", &dir, &["billing", "--json"]);
    let gap = &json(&out)["gaps"][1];
    assert_eq!((&gap["partition"], &gap["first"], &gap["end"]), (&1.into(), &5.into(), &6.into()), "{out}");
    let (_, out, _) = run("describe", &dir, &["billing"]);
    assert!(out.contains("ticks/1: 5 up to, not including, 6 were lost to damage"), "{out}");

    let (code, out, err) = run("reset", &dir, &["billing", "--to", "2020-01-01T00:00:00Z"]);
    assert_eq!(code, 0, "{out}{err}");
    let stands: Vec<_> = committed(&dir, "billing").into_iter().map(|(_, _, offset)| offset).collect();
    assert_eq!(stands, [0, 0, 0, 0], "the gap, too: it is told again");

    assert_eq!(run("acknowledge", &dir, &["nobody"]).0, 1);
    let (code, out, err) = run("acknowledge", &dir, &["billing"]);
    assert!(code == 0 && out.contains("2 gaps"), "{out}{err}");
    let (_, out, _) = run("describe", &dir, &["billing", "--json"]);
    assert_eq!(json(&out)["gaps"].as_array().unwrap().len(), 0, "{out}");
    assert!(!run("ls", &dir, &[]).1.contains("gaps were reported"));
}

#[test]
fn a_reset_takes_the_words_of_kafkas_command() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    written(&dir);
    for (ours, theirs) in [
        (&["--to", "earliest"][..], &["--to-earliest"][..]),
        (&["--to", "latest"], &["--to-latest"]),
        (&["--to", "7"], &["--to-offset", "7"]),
        (&["--to", "2020-01-01T00:00:00Z"], &["--to-datetime", "2020-01-01T00:00:00Z"]),
    ] {
        let rehearsed = |target: &[&str]| run("reset", &dir, &[&["audit", "--dry-run", "--json"], target].concat());
        assert_eq!(rehearsed(theirs), rehearsed(ours));
        assert_eq!(rehearsed(theirs).0, 0);
    }
    assert_eq!(run("list", &dir, &[]), run("ls", &dir, &[]));
}

#[test]
fn a_rehearsed_forget_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    written(&dir);
    let before = committed(&dir, "audit");
    let (code, out, err) = run("forget", &dir, &["audit", "--dry-run"]);
    assert_eq!((code, &*out, &*err), (0, "would be forgotten: audit in 3 partitions\nnothing was changed\n", ""));
    let (code, out, _) = run("acknowledge", &dir, &["audit", "--dry-run"]);
    assert_eq!((code, &*out), (0, "would be acknowledged: 0 gaps of audit\nnothing was changed\n"));
    assert_eq!(committed(&dir, "audit"), before);
}

#[test]
fn topics_are_listed_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    written(&dir);
    let (code, out, err) = of("topic", "list", &dir, &[]);
    assert_eq!((code, &*err, out.lines().count()), (0, "", 3), "{out}");
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(columns(out.lines().nth(1).unwrap())[..3], ["orders", "2", "20"], "{out}");
    let (_, out, _) = of("topic", "ls", &dir, &["--json"]);
    assert_eq!(json(&out)["topics"][1]["partitions"][0]["records"], 10);
    let (code, out, err) = of("topic", "describe", &dir, &["orders"]);
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(columns(out.lines().last().unwrap()), ["1", "0", "10", "10", "0"], "{out}");
    assert_eq!(of("topics", "describe", &dir, &["orders"]).1, out);
    let (code, _, err) = of("topic", "describe", &dir, &["order"]);
    assert!(code == 1 && err.contains("orders, returns"), "{err}");
}

/// Behind a crash a partition goes on at the offsets that it had reserved: who subtracts offsets counts too much.
#[test]
fn offsets_that_jump_are_told_where_offsets_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, crashed) = (folder.path().join("journal"), folder.path().join("crashed"));
    let publish = |engine: &Engine| {
        let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
        ticks.producer().create().unwrap().publish(|tick| *tick = 1).unwrap().wait(Level::Durable).unwrap();
        ticks.group("sums").join().unwrap().poll(LONG).unwrap();
    };
    let engine = Engine::open(&dir).unwrap();
    publish(&engine);
    std::fs::create_dir(&crashed).unwrap();
    for file in std::fs::read_dir(&dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), crashed.join(file.file_name())).unwrap();
    }
    engine.shutdown(LONG);
    assert!(!of("topic", "describe", &dir, &["ticks"]).1.contains("offsets skip"));
    let engine = Engine::open(&crashed).unwrap();
    publish(&engine);
    engine.shutdown(LONG);
    assert_eq!(run("reset", &crashed, &["sums", "--to-earliest", "--topic", "ticks"]).0, 0);
    for (noun, verb, more) in
        [("topic", "describe", &["ticks"][..]), ("group", "describe", &["sums"]), ("journal", "stat", &[])]
    {
        let (code, out, err) = of(noun, verb, &crashed, more);
        assert!(code == 0 && out.contains("offsets skip after a crash"), "{noun} {verb}: {out}{err}");
    }
    let (_, out, _) = of("topic", "describe", &crashed, &["ticks", "--json"]);
    let kept = &json(&out)["partitions"][0];
    assert_eq!(kept["records"], 2, "{out}");
    assert!(kept["skipped"].as_u64().unwrap() > 1_000, "{out}");
}

//! The program `slipring-bridge` and three real servers.

use crate::servers::Servers;
use crate::{ALONE, LONG};
use slipring::{Engine, Level, Message, Record};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

const OUTWARD: &str = "[[outward]]\nname = 'nats'\ntopic = 'orders'\n";

/// A folder with a file of settings and a journal.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
}

/// A program that ends with the test.
pub(crate) struct Running(Child, PathBuf);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// What it has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap()
    }

    pub(crate) fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + LONG;
        while !self.said().contains(text) {
            assert!(Instant::now() < until, "no {text:?} in: {}", self.said());
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(self.said().contains(text), "no {text:?} before {status}: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ends(&mut self) -> Option<i32> {
        let until = Instant::now() + LONG;
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status.code(),
                None => assert!(Instant::now() < until, "it does not end: {}", self.said()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn terminate(&mut self) -> Option<i32> {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        self.ends()
    }
}

impl Machine {
    pub(crate) fn new(servers: &Servers, of_cluster: &str, rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses = servers.addresses();
        let text = format!("journal = 'journal'\n[cluster]\nservers = '{addresses}'\n{of_cluster}\n{rest}");
        std::fs::write(dir.path().join("bridge.toml"), text).unwrap();
        Self { dir }
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipring-bridge"));
        command.arg(arguments[0]).arg(self.dir.path().join("bridge.toml")).args(&arguments[1..]);
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must end well, and returns what it prints.
    pub(crate) fn prints(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let log = self.dir.path().join(format!("log-{}", fastrand::u32(..)));
        let err = std::fs::File::create(&log).unwrap();
        Running(self.command(arguments).stdout(Stdio::null()).stderr(err).spawn().unwrap(), log)
    }
}

/// Publishes into two partitions, as a program would that is not there afterwards.
pub(crate) fn publish(journal: &Path, count: u32) {
    let engine = Engine::open(journal).unwrap();
    let topic = engine.topic::<Message>("orders").partitions(2).durable().create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut last = None;
    for number in 0..count {
        let value = format!("order {number}");
        let record = Record::new(&value).key(&value).header("of", "test").partition(number % 2);
        last = Some(producer.send(record).unwrap());
    }
    last.unwrap().wait(Level::Durable).unwrap();
    drop((producer, topic));
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn the_program_copies_a_journal_shows_it_compares_it_and_forgets_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start() else { return };
    let origin = Machine::new(&servers, "prefix = 'cli'", OUTWARD);
    publish(&origin.journal(), 100);
    let status = origin.prints(&["status"]);
    assert!(status.contains("the stream is not there yet"), "{status}");
    let said = origin.call(&["run", "--drain"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let status = origin.prints(&["status"]);
    let expected = "outward nats: topic orders, partition 1: replicated to 50 of 50, lag 0 records";
    assert!(status.contains(expected) && status.contains("written by this journal in epoch 1, ended"), "{status}");
    publish(&origin.journal(), 20);
    let status = origin.prints(&["status", "--json"]);
    assert!(status.contains("\"lag\":10") && status.contains("\"lag_seconds\":"), "{status}");
    let verified = origin.prints(&["verify"]);
    assert!(verified.contains("partition 0: 50 equal, 10 not copied yet, 0 wrong"), "{verified}");
    assert!(origin.call(&["run", "--drain"]).status.success());

    // A second machine imports them, in a run that is told to end.
    let import = "[[inward]]\nname = 'in'\ntopic = 'copy'\nfrom = 'orders'\npartitions = 2\n";
    let copy = Machine::new(&servers, "prefix = 'cli'", import);
    let mut running = copy.start(&["run"]);
    running.wait_for("all is copied");
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
    let verified = copy.prints(&["verify"]);
    assert!(verified.contains("topic copy, partition 1: 60 equal, 0 not copied yet, 0 wrong"), "{verified}");
    assert!(copy.prints(&["status"]).contains("partition 0: imported 60 of 60 records, lag 0"));

    // Without a number of partitions a new topic has one, and half of the records would be missing.
    let half = Machine::new(&servers, "prefix = 'cli'", &import.replace("partitions = 2", ""));
    let refused = half.call(&["run"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("there is a stream cli-orders-1 at nats://") && said.contains("set `partitions`"), "{said}");

    // Another journal is refused the streams, and differs.
    let other = Machine::new(&servers, "prefix = 'cli'", OUTWARD);
    publish(&other.journal(), 10);
    let refused = other.call(&["run", "--drain"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(7), "{said}");
    assert!(said.contains("stream cli-orders-") && said.contains("is not this journal"), "{said}");
    assert_eq!(other.call(&["verify"]).status.code(), Some(3));

    // What is forgotten begins anew.
    let forgotten = origin.prints(&["reset", "--bridge", "nats", "--delete-streams"]);
    assert!(forgotten.contains("2 positions of topic orders are forgotten"), "{forgotten}");
    assert!(origin.call(&["run", "--drain"]).status.success());
    assert!(origin.prints(&["verify"]).contains("partition 0: 60 equal, 0 not copied yet, 0 wrong"));
}

#[test]
fn a_second_machine_takes_over_by_a_command_and_the_first_one_is_fenced() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start() else { return };
    let [first, second] = ["", "partitions = 2\n"]
        .map(|partitions| Machine::new(&servers, "prefix = 'hand'", &format!("{OUTWARD}{partitions}")));
    let nothing = second.call(&["take-over"]);
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert_eq!(nothing.status.code(), Some(1), "{said}");
    assert!(said.contains("the streams have no records"), "{said}");
    publish(&first.journal(), 100);
    let mut running = first.start(&["run"]);
    running.wait_for("topic orders: all is copied");
    running.0.kill().unwrap();
    // A file that says nothing of the partitions would take one of them over.
    let third = Machine::new(&servers, "prefix = 'hand'", OUTWARD);
    let refused = third.call(&["take-over"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is a stream hand-orders-1"), "{refused:?}");
    let taken = second.prints(&["take-over"]);
    assert!(taken.contains("topic orders, partition 1: taken over, the next offset is 50 or more"), "{taken}");
    publish(&second.journal(), 20);
    assert!(second.call(&["run", "--drain"]).status.success());
    assert!(second.prints(&["verify"]).contains("partition 1: 60 equal, 0 not copied yet, 0 wrong"));
    // What a machine lacks that has not begun again since is no lag of 0.
    let status = first.prints(&["status"]);
    assert!(status.contains("this journal at 50: it lacks records; written by another journal"), "{status}");
    let fenced = first.call(&["run"]);
    let said = String::from_utf8_lossy(&fenced.stderr).into_owned();
    assert_eq!(fenced.status.code(), Some(7), "{said}");
    assert!(said.contains("another bridge has taken the stream over"), "{said}");
    // It has records that were never replicated, so it cannot come back as it is.
    publish(&first.journal(), 30);
    let refused = first.call(&["take-over"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(7), "{said}");
    assert!(said.contains("begins with an empty directory"), "{said}");
}

#[test]
fn with_a_lease_a_second_machine_takes_over_from_a_killed_one_and_a_third_from_a_stopped_one() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start() else { return };
    let rest = format!("{OUTWARD}partitions = 2\n[lease]\nbucket = 'leases'\nlasts = '6s'\n");
    let [first, second, third] = ["a", "b", "c"]
        .map(|name| Machine::new(&servers, "prefix = 'lease'", &format!("{rest}holder = 'machine {name}'\n")));
    publish(&first.journal(), 100);
    let mut running = first.start(&["run"]);
    running.wait_for("topic orders: all is copied");
    let mut standby = second.start(&["run"]);
    standby.wait_for("standby: all is copied");
    standby.wait_for("held by machine a");
    // Killed, as a machine that is lost.
    running.0.kill().unwrap();
    standby.wait_for("the streams are this machine's, the partitions' next offsets are [50, 50]");
    standby.wait_for("topic orders: all is copied");
    assert_eq!(standby.terminate(), Some(0), "{}", standby.said());
    assert!(second.prints(&["verify"]).contains("partition 1: 50 equal, 0 not copied yet, 0 wrong"));
    publish(&second.journal(), 20);
    // The lease was given up, so the second one has it at once. The first one's journal has crashed, and says so.
    let mut working = second.start(&["run"]);
    working.wait_for("topic orders: all is copied");
    let mut crashed = first.start(&["run"]);
    crashed.wait_for("begin with an empty directory");
    assert_eq!(crashed.ends(), Some(1));
    let mut next = third.start(&["run"]);
    next.wait_for("standby: all is copied");
    // Stopped past its successor's takeover, and continued: it has lost the lease, and its bridge is fenced.
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, &working.0.id().to_string()]).status().unwrap().success());
    };
    signal("-STOP");
    next.wait_for("topic orders: all is copied");
    signal("-CONT");
    assert_eq!(working.ends(), Some(8), "{}", working.said());
    assert_eq!(next.terminate(), Some(0), "{}", next.said());
    assert!(third.prints(&["verify"]).contains("partition 1: 60 equal, 0 not copied yet, 0 wrong"));
}

#[test]
fn a_program_runs_while_the_lease_is_held() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start() else { return };
    let program = "program = ['sh', '-c', 'echo it runs >&2; sleep 1000 & wait']";
    let rest = format!("{OUTWARD}[lease]\nbucket = 'programs'\nlasts = '6s'\n{program}\n");
    let machine = Machine::new(&servers, "", &rest);
    let mut running = machine.start(&["run"]);
    running.wait_for("it runs");
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
    // It has the journal for itself, and its failure is this one's.
    let failing = Machine::new(&servers, "", &rest.replace("sleep 1000 & wait", "exit 3"));
    let mut running = failing.start(&["run"]);
    running.wait_for("it runs");
    assert_eq!(running.ends(), Some(8), "{}", running.said());
    assert!(running.said().contains("has failed"), "{}", running.said());
}

#[test]
fn a_wrong_password_is_named_with_server_stream_and_account_and_can_be_mended_while_the_bridge_runs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let accounts = |password: &str| {
        format!(
            "accounts {{ SYS {{ users: [{{ user: admin, password: a }}] }}\n\
             SHOP {{ jetstream: enabled, users: [{{ user: shop, password: {password} }}] }} }}\nsystem_account: SYS\n"
        )
    };
    let Some(mut servers) = Servers::start_with(&accounts("right")) else { return };
    let machine = Machine::new(&servers, "user = 'shop'\npassword = 'wrong'", OUTWARD);
    publish(&machine.journal(), 10);
    let mut running = machine.start(&["run"]);
    running.wait_for("tries again: stream slipring-orders-0 at nats://127.0.0.1:");
    running.wait_for("as user \"shop\": ");
    servers.reload(&accounts("wrong"));
    running.wait_for("topic orders: all is copied");
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
}

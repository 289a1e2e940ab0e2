//! The observing socket on ground that is not ours: paths that others take, readers that drip, a process that changes its
//! directory or has no descriptors left.
#![cfg(unix)]

use slipring::{
    Engine, EngineError,
    clock::ManualClock,
    metrics::{Metrics, ObserveError},
};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn observed(path: &Path) -> Result<Engine, EngineError> {
    Engine::builder().clock(ManualClock::new()).observe(path).build()
}

fn ask(path: &Path, what: &[u8]) -> std::io::Result<String> {
    let mut connection = UnixStream::connect(path)?;
    connection.set_read_timeout(Some(LONG))?;
    connection.write_all(what)?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    Ok(text)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the test of this name, with the folder, in a process of its own.
fn in_child(test: &str, folder: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env("SLIPRING_CHILD", folder).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// The folder, in the child.
fn child() -> Option<std::path::PathBuf> {
    std::env::var_os("SLIPRING_CHILD").map(Into::into)
}

#[test]
fn only_the_socket_that_was_made_there_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("engine.sock"), folder.path().join("aside"));
    // Another engine's.
    let first = observed(&path).unwrap();
    std::fs::rename(&path, &aside).unwrap();
    let second = observed(&path).unwrap();
    drop(first);
    until("the first engine's thread ends although its socket was moved", || UnixStream::connect(&aside).is_err());
    assert!(ask(&path, b"json\n").unwrap().contains("topics"));
    // A file.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    drop(second);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_process_that_changes_its_directory_removes_its_socket_and_nothing_else() {
    if let Some(folder) = child() {
        std::env::set_current_dir(folder.join("here")).unwrap();
        let engine = observed(Path::new("engine.sock")).unwrap();
        std::env::set_current_dir(folder.join("there")).unwrap();
        drop(engine);
        assert!(!folder.join("here/engine.sock").exists());
        assert_eq!(std::fs::read(folder.join("there/engine.sock")).unwrap(), b"mine");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["here", "there"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("there/engine.sock"), "mine").unwrap();
    in_child("a_process_that_changes_its_directory_removes_its_socket_and_nothing_else", folder.path());
}

/// It used a core.
#[test]
fn without_descriptors_the_thread_waits() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    if let Some(folder) = child() {
        let path = folder.join("engine.sock");
        let _engine = observed(&path).unwrap();
        let waiting = UnixStream::connect(&path).unwrap();
        drop(waiting);
        // As many as are open now, and one for the other side of a connection.
        let mut spare = vec![UnixStream::pair().unwrap()];
        let open = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count) as u64;
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(open.max(16));
        setrlimit(Resource::Nofile, limit).unwrap();
        while let Ok(pair) = UnixStream::pair() {
            spare.push(pair);
        }
        // This end takes one of the last two descriptors, its other end finds none.
        drop(spare.pop());
        let mut held = Vec::new();
        while let Ok(connection) = UnixStream::connect(&path) {
            held.push(connection);
        }
        assert!(!held.is_empty());
        let used = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let before = used();
        std::thread::sleep(Duration::from_secs(2));
        let used = used() - before;
        assert!(used < Duration::from_millis(500), "{used:?} of a core in 2 s");
        // With descriptors again it answers.
        drop((held, spare));
        assert!(ask(&path, b"json\n").unwrap().contains("topics"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    in_child("without_descriptors_the_thread_waits", folder.path());
}

#[test]
fn a_dripping_reader_keeps_up_neither_others_nor_the_end_of_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let (path, dir) = (folder.path().join("engine.sock"), folder.path().join("journal"));
    let engine = Engine::builder().clock(ManualClock::new()).journal(&dir).observe(&path).build().unwrap();
    // More than a socket's buffers take.
    for index in 0..4 {
        engine.topic::<u64>(&format!("topic-{index}")).partitions(1024).capacity(2).create().unwrap();
    }
    let drips = Arc::new(AtomicBool::new(true));
    let drip = || {
        let drips = Arc::clone(&drips);
        let mut connection = UnixStream::connect(&path).unwrap();
        connection.write_all(b"json\n").unwrap();
        std::thread::spawn(move || {
            let (mut part, mut read) = ([0; 512], 0);
            while let Ok(len @ 1..) = connection.read(&mut part) {
                read += len;
                if drips.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            read
        })
    };
    let drippers: Vec<_> = (0..3).map(|_| drip()).collect();
    // The journal's counters may still grow by what the topics have left to be synced.
    let mut text = String::new();
    until("the same metrics", || {
        text = ask(&path, b"json\n").unwrap();
        serde_json::from_str::<Metrics>(&text).unwrap() == engine.metrics()
    });
    assert!(text.len() > 400_000, "{}", text.len());
    assert!(drippers.iter().all(|it| !it.is_finished()), "they are written to still");
    drop(engine);
    // Nobody who writes to them holds the engine: it has ended here, and its socket with it.
    assert!(!path.exists(), "a reader keeps the engine");
    // Nobody holds the journal any more.
    until("the journal is free", || Engine::open(&dir).is_ok());
    drips.store(false, Ordering::Relaxed);
    for dripper in drippers {
        assert!(dripper.join().unwrap() < text.len(), "a reader has a second, and no more, for its answer");
    }
}

#[test]
fn a_long_request_is_answered_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let engine = observed(&path).unwrap();
    engine.topic::<u64>("ticks").create().unwrap();
    let header = format!("X-Long: {}\r\n", "x".repeat(1000));
    for headers in [1, 8, 40] {
        let request = format!("GET /metrics HTTP/1.1\r\n{}\r\n", header.repeat(headers));
        let answer = ask(&path, request.as_bytes()).unwrap();
        assert!(answer.ends_with(&engine.metrics().to_prometheus()), "{headers} headers: {} bytes", answer.len());
    }
    // A request in several parts.
    let mut connection = UnixStream::connect(&path).unwrap();
    for part in ["GET /met", "rics HTTP/1.1\r\n", "\r\n"] {
        connection.write_all(part.as_bytes()).unwrap();
    }
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("version=0.0.4"), "{answer}");
}

#[test]
fn what_is_left_of_killed_processes_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    // In a container each process has the number 1.
    let pid = std::process::id();
    for name in [format!("engine.sock.{pid}"), format!("engine.sock.{pid}.0")] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let stale = folder.path().join(format!("engine.sock.{pid}.0"));
    drop(UnixListener::bind(stale.join("s")).unwrap());
    drop(observed(&path).unwrap());
    assert!(stale.exists(), "it may be in use");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&stale).unwrap().set_modified(long_ago).unwrap();
    drop(observed(&path).unwrap());
    assert!(!stale.exists() && !path.exists());
}

#[test]
fn paths_that_cannot_be_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| match observed(path).unwrap_err() {
        EngineError::Observe(refused) => refused,
        other => panic!("{other}"),
    };
    for zero in ["\0abstract", "a\0b"] {
        let refused = refused(Path::new(zero));
        assert!(matches!(refused, ObserveError::ZeroByte { .. }), "{refused}");
        assert!(!refused.to_string().contains('\0'));
    }
    let of_length = |len: usize| {
        let fill = len - folder.path().as_os_str().len() - 1;
        folder.path().join("x".repeat(fill))
    };
    let ObserveError::TooLong { len, limit, .. } = refused(&of_length(200)) else { panic!() };
    assert_eq!(len, 200);
    assert!(matches!(refused(&of_length(limit + 1)), ObserveError::TooLong { .. }));
    let longest = of_length(limit);
    let engine = observed(&longest).unwrap();
    assert!(ask(&longest, b"json\n").unwrap().contains("topics"), "the limit that is told is the limit");
    drop(engine);
    assert!(!longest.exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// It waited for a process that accepts nobody, for ever.
#[test]
fn a_socket_whose_process_accepts_nothing_is_taken() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let hung = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&hung, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&hung, 0).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let connection = UnixStream::from(socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap());
        connection.set_nonblocking(true).unwrap();
        let _ = rustix::net::connect(&connection, &SocketAddrUnix::new(&path).unwrap());
        waiting.push(connection);
    }
    let refused = observed(&path).unwrap_err();
    assert!(matches!(refused, EngineError::Observe(ObserveError::Taken { .. })), "{refused}");
}

/// Only root can make one.
#[test]
fn a_socket_of_another_user_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    drop(UnixListener::bind(&path).unwrap());
    if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
        return;
    }
    let refused = observed(&path).unwrap_err();
    assert!(matches!(refused, EngineError::Observe(ObserveError::NotOurs { owner: 12345, .. })), "{refused}");
    assert!(path.exists());
}

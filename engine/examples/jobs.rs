//! A work queue: pictures to be made smaller by a few workers. Some fail once and are tried again after a while, some fail
//! always and become dead letters, until the program is mended and sends them back. In the middle the process ends with a
//! job in its hands, and the next one goes on with it.
//!
//!     cargo run --example jobs

use slipring::{
    Engine, Level, Message, Record, Topic,
    queue::{Backoff, Lease, QueueBuilder, Worker},
};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

const PICTURES: usize = 24;
const LONG: Duration = Duration::from_secs(60);

/// The topic, from the journal if it is there already.
fn open(dir: &Path) -> Result<(Engine, Topic<Message>), Box<dyn Error>> {
    let engine = Engine::open(dir)?;
    let jobs = engine.topic::<Message>("pictures").partitions(2).max_message(256).durable().create()?;
    Ok((engine, jobs))
}

/// Its queue: whoever opens it or joins it must mean the same.
fn queue(jobs: &Topic<Message>) -> QueueBuilder {
    let backoff = Backoff::exponential(Duration::from_millis(5), Duration::from_millis(50));
    // What was acked never comes again, even if the power goes at the next moment.
    jobs.queue("resize").visibility(LONG).max_attempts(3).backoff(backoff).acknowledge(Level::Durable)
}

fn name(job: &Lease) -> String {
    String::from_utf8_lossy(job.message().value()).into_owned()
}

/// Makes a picture smaller. Each fourth one is locked at first, each sixth one has a format that only version 2 knows.
fn resize(job: &Lease, version: u32) -> Result<(), String> {
    let name = name(job);
    let number: usize = name.trim_end_matches(".png").parse().map_err(|_| format!("{name:?} is no picture"))?;
    match () {
        () if number.is_multiple_of(6) && version < 2 => Err("unknown format".to_owned()),
        () if number.is_multiple_of(4) && job.attempt() == 1 => Err("the file is locked".to_owned()),
        () => Ok(()),
    }
}

/// Works until nothing is left. What was done is counted in `done`.
fn work(mut worker: Worker, version: u32, done: &Mutex<BTreeMap<String, u32>>) -> Result<(), Box<dyn Error>> {
    loop {
        let Some(job) = worker.receive(Duration::from_millis(20))? else {
            let left = worker.queue().metrics();
            if left.unread + left.leased + left.waiting + left.dying == 0 {
                return Ok(());
            }
            continue;
        };
        match resize(&job, version) {
            Ok(()) => {
                *done.lock().map_err(|_| "a worker panicked")?.entry(name(&job)).or_default() += 1;
                job.ack()?;
            }
            Err(cause) => job.retry(&cause)?,
        }
    }
}

/// Three workers, each on a thread of its own.
fn work_all(jobs: &Topic<Message>, version: u32, done: &Mutex<BTreeMap<String, u32>>) -> Result<(), Box<dyn Error>> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..3 {
            let worker = queue(jobs).join()?;
            threads.push(scope.spawn(move || work(worker, version, done).map_err(|refused| refused.to_string())));
        }
        for thread in threads {
            thread.join().map_err(|_| "a worker panicked")??;
        }
        Ok(())
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("journal");
    let done = Mutex::new(BTreeMap::new());

    // The first process: publishes the jobs, begins with one, and ends before that is done.
    let (engine, jobs) = open(&dir)?;
    let mut producer = jobs.producer().create()?;
    for number in 1..=PICTURES {
        let name = format!("{number}.png");
        producer.send(Record::new(&name).key(&name))?;
    }
    let tomorrow = producer.send(Record::new("25.png").partition(0).delay(Duration::from_secs(86_400)))?;
    tomorrow.wait(Level::Durable)?;
    assert!(queue(&jobs).open()?.delete(&tomorrow)?, "somebody has thought better of it");
    let job = queue(&jobs).join()?.receive(LONG)?.ok_or("no job within a minute")?;
    let (begun, ticket) = (name(&job), job.leave());
    drop(producer);
    let report = engine.shutdown(LONG);
    println!("the first process ends with {begun} in its hands:\n{report}\n");

    // The second one: nobody else has been given that job meanwhile.
    let (engine, jobs) = open(&dir)?;
    let resizing = queue(&jobs).open()?;
    let job = resizing.resume(&ticket)?;
    assert_eq!(name(&job), begun);
    match resize(&job, 1) {
        Ok(()) => {
            done.lock().map_err(|_| "a worker panicked")?.insert(begun, 1);
            job.ack()?;
        }
        Err(cause) => job.retry(&cause)?,
    }
    work_all(&jobs, 1, &done)?;
    let letters = resizing.dead_letters().collect::<Result<Vec<_>, _>>()?;
    for letter in &letters {
        let name = String::from_utf8_lossy(letter.message.value());
        println!("{name} is dead after {} attempts: {}", letter.attempts, letter.reason);
        assert_eq!((letter.attempts, &*letter.reason), (3, "unknown format"));
    }
    assert_eq!(letters.len(), PICTURES / 6);

    // Version 2 knows the format: the dead come back.
    assert_eq!(resizing.redrive(u64::MAX), (PICTURES / 6) as u64);
    work_all(&jobs, 2, &done)?;
    assert!(resizing.dead_letters().next().is_none());
    let done = done.into_inner().map_err(|_| "a worker panicked")?;
    assert_eq!(done.len(), PICTURES, "every picture");
    assert!(done.values().all(|&times| times == 1), "and each once: {done:?}");
    drop(resizing);
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    println!("\n{} pictures, each once\n{report}", done.len());
    Ok(())
}

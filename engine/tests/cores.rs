//! Who runs on which core, under which name, and how it waits.

use slipring::{
    Engine, EngineBuilder, EngineError, Topic, Wait,
    cores::{CorePlan, CoresError, pin},
    producer::Multi,
    subscriber::{SubscribeError, Subscription},
};
use std::convert::Infallible;
use std::sync::mpsc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

fn fine(_: &u64, _: slipring::subscriber::At) -> Result<(), Infallible> {
    Ok(())
}

fn with(plan: CorePlan) -> (Engine, Topic<u64>) {
    let engine = EngineBuilder::default().cores(plan).build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(2).create().unwrap();
    (engine, topic)
}

fn spin(topic: &Topic<u64>, name: &str) -> Result<Subscription<u64, Multi>, SubscribeError> {
    topic.subscribe(name).wait(Wait::spin()).run(fine)
}

#[test]
fn more_spinning_threads_than_cores_are_refused_before_they_start() {
    let (engine, topic) = with(CorePlan::new());
    let cores = engine.cores().cores.len();
    for index in 0..cores {
        spin(&topic, &format!("spin-{index}")).unwrap();
    }
    let refused = spin(&topic, "one-too-many").unwrap_err();
    let told = refused.to_string();
    assert!(matches!(refused, SubscribeError::Cores { cause: CoresError::TooMany { .. }, .. }));
    assert!(told.contains("one-too-many") && told.contains("spin-0") && told.contains("oversubscribe"), "{told}");
    let group = topic.group("also").wait(Wait::busy_spin()).run(fine).unwrap_err();
    assert!(group.to_string().contains("also"), "{group}");
    assert_eq!(topic.metrics().consumers.len(), cores, "nobody joined");
    // Who yields or parks is welcome, and so is who comes when one has gone.
    topic.subscribe("yields").wait(Wait::spin_yield()).run(fine).unwrap();
    assert!(engine.shutdown(LONG).is_complete());
    assert!(engine.cores().threads.is_empty());
}

#[test]
fn they_are_accepted_if_told() {
    let (engine, topic) = with(CorePlan::new().oversubscribe());
    for index in 0..engine.cores().cores.len() + 1 {
        spin(&topic, &format!("spin-{index}")).unwrap();
    }
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn two_threads_on_one_core_are_refused_while_one_spins() {
    let core = pin::allowed_cores()[0];
    let (engine, topic) = with(CorePlan::new());
    topic.subscribe("parks").pin(core).run(fine).unwrap();
    topic.subscribe("parks-too").pin(core).run(fine).unwrap();
    let refused = topic.subscribe("spins").pin(core).wait(Wait::busy_spin()).run(fine).unwrap_err();
    assert!(
        matches!(&refused, SubscribeError::Cores { cause: CoresError::CoreTaken { other, .. }, .. } if other == "parks"),
        "{refused}"
    );
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_plan_is_checked_when_the_engine_is_built_and_followed_by_consumers_of_its_names() {
    let cores = pin::allowed_cores();
    let no_core = EngineBuilder::default().cores(CorePlan::new().pin("book", 999)).build().unwrap_err();
    assert!(matches!(&no_core, EngineError::Cores(CoresError::Core { .. })) && no_core.to_string().contains("999"));
    let spin = |plan: CorePlan, name: &str| plan.pin(name, cores[0]).wait(name, Wait::busy_spin());
    let two = spin(spin(CorePlan::new(), "a"), "b");
    assert!(matches!(
        EngineBuilder::default().cores(two.clone()).build(),
        Err(EngineError::Cores(CoresError::CoreTaken { .. }))
    ));
    assert!(EngineBuilder::default().cores(two.oversubscribe()).build().is_ok());
    let plan = CorePlan::new().pin("book", cores[0]).wait("book", Wait::backoff()).pin("sums", cores[0]);
    let (engine, topic) = with(plan);
    topic.subscribe("book").run(fine).unwrap();
    topic.group("sums").run(fine).unwrap();
    topic.subscribe("other").run(fine).unwrap();
    let report = engine.cores();
    let shown: Vec<_> =
        report.threads.iter().map(|it| (&*it.consumer, it.core, it.wait.to_string(), it.spins)).collect();
    assert_eq!(
        shown,
        [
            ("book", Some(cores[0]), "backoff".to_owned(), false),
            ("sums", Some(cores[0]), "spin-then-park".to_owned(), false),
            ("other", None, "spin-then-park".to_owned(), false),
        ]
    );
    assert!(report.to_string().starts_with("3 threads on"), "{report}");
    engine.shutdown(LONG);
}

#[test]
fn threads_are_shown_under_their_subscribers_names() {
    let (engine, topic) = with(CorePlan::new());
    let (told, shown) = mpsc::channel();
    for name in ["book", "a-subscriber-with-a-long-name-1", "a-subscriber-with-a-long-name-2"] {
        let told = told.clone();
        let make = move || {
            let system = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default().trim().to_owned();
            told.send((system, std::thread::current().name().unwrap_or_default().to_owned())).unwrap();
        };
        topic.subscribe(name).run_with(make, |(), _, _| Ok::<_, Infallible>(())).unwrap();
    }
    let seen: Vec<_> = (0..3).map(|_| shown.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(seen[1].1, "a-subscriber-with-a-long-name-1", "panics tell the whole name");
    let reported: Vec<_> = engine.cores().threads.into_iter().map(|it| it.name).collect();
    assert_eq!(reported, ["book", "a-subsc~-name-1", "a-subsc~-name-2"]);
    if cfg!(target_os = "linux") {
        assert_eq!(seen.into_iter().map(|it| it.0).collect::<Vec<_>>(), reported);
    }
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn the_way_of_waiting_is_changed_while_a_thread_spins_or_sleeps() {
    let (engine, topic) = with(CorePlan::new());
    let (told, seen) = mpsc::channel();
    let shared = told.clone();
    let one = topic.subscribe("one").wait(Wait::busy_spin()).run(move |tick, _| shared.send(*tick)).unwrap();
    let each = topic.subscribe("each").run_each(move |_| {
        let told = told.clone();
        move |tick: &u64, _: slipring::subscriber::At| told.send(*tick)
    });
    let each = each.unwrap();
    let mut producer = topic.producer().create().unwrap();
    let ways = [
        Wait::spin_then_park(),
        Wait::spin_yield(),
        Wait::backoff(),
        Wait::spin_then_park().spin_for(Duration::ZERO).yields(0),
    ];
    for (round, wait) in ways.into_iter().enumerate() {
        one.set_wait(wait.clone()).unwrap();
        each.set_wait(wait.clone()).unwrap();
        assert!(engine.cores().threads.iter().all(|it| it.wait == wait), "{}", engine.cores());
        for partition in 0..2 {
            producer.publish_to(partition, |tick| *tick = round as u64).unwrap();
            (0..2).for_each(|_| assert_eq!(seen.recv_timeout(LONG).unwrap(), round as u64));
        }
    }
    // Two threads of one subscriber would spin, beside another one.
    let cores = engine.cores().cores.len();
    if cores == 2 {
        one.set_wait(Wait::busy_spin()).unwrap();
        let before = engine.cores();
        assert!(matches!(each.set_wait(Wait::busy_spin()), Err(CoresError::TooMany { .. })));
        assert!(engine.cores().threads.iter().zip(&before.threads).all(|(now, before)| now.wait == before.wait));
    }
    assert!(engine.shutdown(LONG).is_complete());
    assert!(matches!(one.set_wait(Wait::backoff()), Err(CoresError::NoThread { .. })));
}

/// Runs the test of this name in a process whose mask is `core` alone.
#[cfg(target_os = "linux")]
fn in_child_on(core: usize, test: &str) {
    let output = std::thread::scope(|scope| {
        let spawn = move || {
            pin::let_current_run_on(&[core]).unwrap();
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", test, "--nocapture"]).env("SLIPRING_CHILD", core.to_string()).output().unwrap()
        };
        scope.spawn(spawn).join().unwrap()
    });
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// It named all cores of the machine, and pinned to them.
#[test]
#[cfg(target_os = "linux")]
fn the_mask_of_the_process_is_what_its_threads_may_use() {
    let Ok(mask) = std::env::var("SLIPRING_CHILD") else {
        let core = *pin::allowed_cores().last().unwrap();
        return in_child_on(core, "the_mask_of_the_process_is_what_its_threads_may_use");
    };
    let core: usize = mask.parse().unwrap();
    assert_eq!(pin::allowed_cores(), [core]);
    let other = usize::from(core == 0);
    let refused = pin::pin_current(other).unwrap_err();
    assert!(matches!(&refused, pin::PinError::Refused { allowed, .. } if *allowed == [core]), "{refused}");
    let (engine, topic) = with(CorePlan::new());
    assert_eq!(engine.cores().cores, [core]);
    topic.subscribe("elsewhere").pin(other).run(fine).unwrap_err();
    spin(&topic, "one").unwrap();
    spin(&topic, "two").unwrap_err();
    assert!(engine.shutdown(LONG).is_complete());
    pin::use_every_core();
    let every = pin::allowed_cores();
    assert!(every.contains(&core));
    if every.contains(&other) {
        pin::pin_current(other).unwrap();
    }
}

/// Two that spin were let onto the one core of the thread that started both, and the report named none.
#[test]
#[cfg(target_os = "linux")]
fn a_thread_without_a_pin_has_that_of_the_thread_which_starts_it() {
    let core = pin::allowed_cores()[0];
    if pin::allowed_cores().len() < 2 {
        return;
    }
    let started = move || {
        pin::pin_current(core).unwrap();
        let (engine, topic) = with(CorePlan::new());
        spin(&topic, "one").unwrap();
        let refused = spin(&topic, "two").map(drop).unwrap_err();
        assert!(matches!(refused, SubscribeError::Cores { cause: CoresError::CoreTaken { .. }, .. }), "{refused}");
        let group = topic.group("three").wait(Wait::busy_spin()).run(fine).map(drop).unwrap_err();
        assert!(group.to_string().contains("three"), "{group}");
        let report = engine.cores();
        assert_eq!((report.threads[0].core, &*report.threads[0].cores), (Some(core), &[core][..]));
        assert!(engine.shutdown(LONG).is_complete());
    };
    std::thread::spawn(started).join().unwrap();
}

/// What a thread's own state does to its mask counts: the thread was shown, and admitted, with the mask of its starter.
#[test]
#[cfg(target_os = "linux")]
fn a_thread_that_pins_itself_is_shown_and_counted_where_it_runs() {
    let allowed = pin::allowed_cores();
    let [_, core, ..] = allowed[..] else { return };
    let (engine, topic) = with(CorePlan::new());
    let (told, runs) = mpsc::channel();
    let own = topic.subscribe("own").wait(Wait::spin());
    own.run_with(move || pin::pin_current(core).unwrap(), move |(), _, _| told.send(())).unwrap();
    topic.producer().create().unwrap().publish(|_| ()).unwrap();
    runs.recv_timeout(LONG).unwrap();
    let report = engine.cores();
    assert_eq!((report.threads[0].core, &*report.threads[0].cores), (Some(core), &[core][..]), "{report}");
    let refused = topic.subscribe("beside").pin(core).run(fine).map(drop).unwrap_err();
    assert!(
        matches!(&refused, SubscribeError::Cores { cause: CoresError::CoreTaken { other, .. }, .. } if other == "own"),
        "{refused}"
    );
    assert!(engine.shutdown(LONG).is_complete());
}

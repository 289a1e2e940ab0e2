use super::*;
use slipring_ring::WaitStrategy;
use std::collections::HashSet;

const LATER: Duration = Duration::from_secs(600);

/// Sources that count the checks and registrations that a wait makes of them.
#[derive(Default)]
struct Counting {
    has: HashSet<usize>,
    looks: usize,
    /// Count of the checks that may pause, that is, whose `looks` is 0.
    pauses: usize,
    arms: usize,
    /// `(count, source)`: once `count` sources were armed, each further arming wakes the waiter with the number
    /// `source`.
    rings: Option<(usize, usize)>,
    /// How long each arming takes that wakes the waiter.
    slow: Duration,
}

impl WaitSources for Counting {
    fn look(&mut self, source: usize, looks: u32) -> bool {
        self.looks += 1;
        self.pauses += usize::from(looks == 0);
        self.has.contains(&source)
    }

    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool {
        if self.has.contains(&source) {
            return false;
        }
        self.arms += 1;
        if let Some((_, rung)) = self.rings.filter(|(after, _)| self.arms >= *after) {
            std::thread::sleep(self.slow);
            self.has.insert(rung);
            waiter.wake(rung);
        }
        true
    }
}

impl Counting {
    fn take(&mut self) -> (usize, usize, usize) {
        let counts = (self.looks, self.pauses, self.arms);
        (self.looks, self.pauses, self.arms) = (0, 0, 0);
        counts
    }
}

/// Looks 1,000 times with a spin hint and 20 times with a yield, then sleeps: the same on every processor.
struct Counted;

impl WaitStrategy for Counted {
    fn idle(&self, looks: u32) -> Idle {
        match looks {
            0..=1_000 => std::hint::spin_loop(),
            1_001..=1_020 => std::thread::yield_now(),
            _ => return Idle::Sleep,
        }
        Idle::Look
    }
}

fn waiting(sources: usize) -> MultiWait {
    let mut watch = MultiWait::new(Wait::custom(Counted), Arc::new(Waiter::new()));
    (0..sources).for_each(|source| watch.add(source));
    watch
}

/// An earlier version checked each source a thousand times before a sleep: a million checks of a thousand sources.
#[test]
fn the_polls_before_a_sleep_do_not_grow_with_the_number_of_sources() {
    for sources in [1, 4, 64, 1024] {
        let mut watch = waiting(sources);
        let mut counting = Counting { rings: Some((sources, sources - 1)), ..Counting::default() };
        let found = watch.next(&mut counting, false, Instant::now().checked_add(LATER));
        assert_eq!(found, WaitEnd::Source(sources - 1));
        let (looks, _, arms) = counting.take();
        assert!(looks <= 1_020 + 3 * sources, "{sources} sources: {looks} polls before the first sleep");
        assert_eq!(arms, sources, "it has slept");
        // All sources but this one are armed from now on, and are not checked.
        counting.rings = Some((1, sources - 1));
        counting.has.clear();
        assert_eq!(watch.next(&mut counting, false, Instant::now().checked_add(LATER)), WaitEnd::Source(sources - 1));
        let (looks, _, arms) = counting.take();
        assert!(looks <= 1_020 + 3 * FEW && arms == 1, "{sources} sources: {looks} polls before the second sleep");
    }
}

/// An earlier version checked all sources in each call.
#[test]
fn a_call_that_does_not_wait_polls_the_busy_sources_and_a_few_others() {
    for sources in [4, 64, 1024] {
        let mut watch = waiting(sources);
        let mut counting = Counting { has: [sources / 2].into(), ..Counting::default() };
        for _ in 0..QUIET + 1 {
            assert_eq!(watch.next(&mut counting, true, None), WaitEnd::Source(sources / 2));
        }
        let (_, pauses, arms) = counting.take();
        assert_eq!(
            (pauses, arms),
            (0, sources.saturating_sub(FEW)),
            "{sources} sources: no pause in a call that does not wait"
        );
        for _ in 0..1_000 {
            assert_eq!(watch.next(&mut counting, true, None), WaitEnd::Source(sources / 2));
        }
        let (looks, ..) = counting.take();
        assert!(looks <= 1_000 * FEW, "{sources} sources: {looks} polls in 1,000 calls");
        // One of the armed sources wakes the waiter, and is returned.
        let rung = watch.armed.iter().position(|armed| *armed).unwrap_or(0);
        counting.has.insert(rung);
        watch.waiter.wake(rung);
        let found = (0..2 * PATIENCE).map(|_| watch.next(&mut counting, true, None));
        assert!(found.into_iter().any(|found| found == WaitEnd::Source(rung)), "{sources} sources");
        // Without any event, only the few ready sources are checked, twice a call.
        counting.has.clear();
        (0..2 * QUIET).for_each(|_| _ = watch.next(&mut counting, true, None));
        counting.take();
        assert_eq!(watch.next(&mut counting, true, None), WaitEnd::Nothing);
        assert!(counting.take().0 <= 2 * FEW.min(sources));
    }
}

/// In an earlier version, a waiting call paused at each source.
#[test]
fn a_call_that_waits_pauses_at_one_source_at_most() {
    let mut watch = waiting(64);
    let mut counting = Counting { has: [63].into(), ..Counting::default() };
    for call in 1..100 {
        assert_eq!(watch.next(&mut counting, false, None), WaitEnd::Source(63));
        assert!(counting.pauses <= call);
    }
}

#[test]
fn a_source_that_may_not_rest_is_armed_for_a_sleep_alone() {
    struct Restless(Counting);
    impl WaitSources for Restless {
        fn look(&mut self, source: usize, looks: u32) -> bool {
            self.0.look(source, looks)
        }
        fn arm(&mut self, source: usize, waiter: &Waiter) -> bool {
            self.0.arm(source, waiter)
        }
        fn may_rest(&self, _: usize) -> bool {
            false
        }
    }
    let mut watch = waiting(64);
    let mut restless = Restless(Counting::default());
    (0..1_000).for_each(|_| assert_eq!(watch.next(&mut restless, true, None), WaitEnd::Nothing));
    assert_eq!(restless.0.arms, 0);
}

/// In an earlier version, the thread spun before each sleep, however far apart the events were.
#[test]
fn a_sparing_wait_spins_in_vain_once() {
    let mut watch = waiting(4).sparing();
    let slow = 2 * CLOSE;
    let mut spun = 0;
    for event in 0..20 {
        let mut counting = Counting { slow, ..Counting::default() };
        counting.rings = Some((watch.ready.len(), event % 4));
        assert_eq!(watch.next(&mut counting, false, Instant::now().checked_add(LATER)), WaitEnd::Source(event % 4));
        spun += usize::from(counting.looks > 30);
    }
    assert_eq!(spun, 1, "waits that spun");
    // After two events that follow closely, the thread spins again.
    let mut counting = Counting::default();
    while !watch.pace.is_some_and(|pace| pace.is_close) {
        counting.has.clear();
        counting.rings = Some((1, 0));
        assert_eq!(watch.next(&mut counting, false, Instant::now().checked_add(LATER)), WaitEnd::Source(0));
    }
    counting.take();
    counting.has.clear();
    counting.rings = Some((1, 0));
    assert_eq!(watch.next(&mut counting, false, Instant::now().checked_add(LATER)), WaitEnd::Source(0));
    assert!(counting.looks > 1_000);
}

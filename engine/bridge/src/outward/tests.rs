//! The copier against a stream in memory with faults that are drawn from a seed.

use super::*;
use crate::memory::{Faults, MemoryCluster, MemoryStream};

const WINDOW: Window =
    Window { messages: 16, bytes: 1 << 20, answer: Duration::from_millis(2), pause: Duration::ZERO, packed: 1 };
const JOURNAL: [u8; 16] = [7; 16];

fn record(offset: u64) -> Record {
    Record { offset, value: offset.to_le_bytes().to_vec(), ..Record::default() }
}

/// Offsets with gaps, as a journal has them.
fn offsets(count: u64) -> Vec<u64> {
    (0..count).map(|number| 3 + 2 * number + number / 7).collect()
}

/// A bridge's side: the journal's position, and a copier that can be started anew.
struct Side {
    nonce: u64,
    next: u64,
    position: Position,
    journal: [u8; 16],
    takes_over: bool,
}

impl Side {
    fn new(journal: [u8; 16]) -> Self {
        Self { nonce: 0, next: 0, position: Position::default(), journal, takes_over: false }
    }

    fn start(&mut self, cluster: &MemoryCluster) -> Outward<MemoryStream> {
        self.nonce += 1;
        let (id, from) = ((self.journal, self.nonce), (self.next, self.position.clone()));
        let copier = Outward::new(cluster.stream(), WINDOW, id, from, self.takes_over);
        Outward { fence: WINDOW.messages as u64, ..copier }
    }

    /// Copies these records from the journal's position on, at most so many steps. `keeps`: the position is recorded.
    fn run(
        &mut self,
        copier: &mut Outward<MemoryStream>,
        offsets: &[u64],
        steps: u32,
        keeps: bool,
    ) -> Result<bool, Stopped> {
        let from = self.next;
        let mut left = offsets.iter().copied().filter(|offset| *offset >= from).peekable();
        for _ in 0..steps {
            while copier.has_room()
                && let Some(offset) = left.next()
            {
                copier.push(record(offset))?;
            }
            let position = &mut self.position;
            copier.step(Duration::ZERO, &mut |new| {
                *position = new.clone();
                Ok(())
            })?;
            if left.peek().is_none() && copier.is_idle() {
                break;
            }
        }
        let is_done = left.peek().is_none() && copier.is_idle();
        if keeps {
            (self.next, self.position) = (copier.confirmed(), copier.position().clone());
        }
        Ok(is_done)
    }
}

/// Each record once, in order, and nothing else.
fn check(cluster: &MemoryCluster, offsets: &[u64]) {
    let expected: Vec<_> = offsets.iter().map(|offset| record(*offset)).collect();
    assert_eq!(cluster.records(), expected);
}

const FAULTS: Faults =
    Faults { message_lost: 60, answer_lost: 60, late: 300, unanswered: 200, stale: 200, unapplied: 200 };

#[test]
fn each_record_comes_once_and_in_order_whatever_is_lost_late_or_old() {
    for seed in 0..300 {
        let (cluster, mut side, offsets) = (MemoryCluster::new(seed, FAULTS), Side::new(JOURNAL), offsets(120));
        let mut copier = side.start(&cluster);
        let is_done = side.run(&mut copier, &offsets, 20_000, true).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(is_done, "seed {seed}: {:?}", copier.error());
        cluster.arrive();
        check(&cluster, &offsets);
    }
}

#[test]
fn a_bridge_that_is_killed_at_any_step_goes_on_where_the_stream_ends() {
    for seed in 0..300 {
        let (cluster, mut side, offsets) = (MemoryCluster::new(seed, FAULTS), Side::new(JOURNAL), offsets(120));
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            let mut copier = side.start(&cluster);
            let (steps, keeps) = (random.u32(1..60), random.bool());
            let done = side.run(&mut copier, &offsets, steps, keeps);
            if done.unwrap_or_else(|why| panic!("seed {seed}: {why}")) {
                break;
            }
            // What it has left in its socket arrives when it likes.
            copier.remote().forget();
        }
        cluster.arrive();
        check(&cluster, &offsets);
    }
}

/// Where the held messages of the old copier arrive: behind this many of the new one's messages, whose first is its mark.
fn takeover(arrives_behind: u64) {
    let (offsets, seed) = (offsets(40), arrives_behind);
    let (cluster, mut old) = (MemoryCluster::new(seed, Faults::default()), Side::new(JOURNAL));
    let mut first = old.start(&cluster);
    assert!(old.run(&mut first, &offsets[..10], 1000, true).unwrap());
    // A whole window is sent, and nothing of it has arrived.
    let window = &offsets[10..10 + WINDOW.messages];
    window.iter().for_each(|offset| first.push(record(*offset)).unwrap());
    cluster.set_held(true);
    first.step(Duration::ZERO, &mut |_| Ok(())).unwrap();
    assert_eq!(first.sent, WINDOW.messages);
    first.doubt(RemoteError::Transient("the process was stopped".to_owned())).unwrap();
    cluster.set_held(false);

    let begun = cluster.sequence();
    cluster.arrive_at(begun + arrives_behind);
    let mut new = Side { takes_over: true, ..Side::new([8; 16]) };
    let mut second = new.start(&cluster);
    assert!(new.run(&mut second, &offsets, 1000, true).unwrap());
    check(&cluster, &offsets);
    let fence = WINDOW.messages as u64;
    // Behind the mark all but the first of the window fit, and later ones fit in the same way.
    assert_eq!(cluster.deleted() > 0, (1..fence).contains(&arrives_behind), "{arrives_behind}: {}", cluster.deleted());

    let why = (0..100).find_map(|_| first.step(Duration::ZERO, &mut |_| Ok(())).err());
    assert!(matches!(why, Some(Stopped::Fenced { .. })), "{why:?}");
    assert_eq!(first.confirmed(), offsets[9] + 1, "nothing that was late is replicated");
    // It stays down, also when it is started again.
    let mut again = old.start(&cluster);
    let why = old.run(&mut again, &offsets, 100, false);
    assert!(matches!(why, Err(Stopped::Fenced { .. })), "{why:?}");
    check(&cluster, &offsets);
}

#[test]
fn messages_of_a_fenced_bridge_never_stay_behind_its_successor() {
    // Behind each mark of the fence, and behind each of the first records.
    (1..2 * WINDOW.messages as u64 + 10).for_each(takeover);
}

#[test]
fn a_successor_that_is_killed_in_its_fence_is_followed_by_one_that_cleans_up() {
    for (kill, arrives_behind) in (1..20).flat_map(|kill| (1..20).map(move |behind| (kill, behind))) {
        let offsets = offsets(40);
        let (cluster, mut old) = (MemoryCluster::new(kill, Faults::default()), Side::new(JOURNAL));
        let mut first = old.start(&cluster);
        assert!(old.run(&mut first, &offsets[..10], 1000, true).unwrap());
        offsets[10..20].iter().for_each(|offset| first.push(record(*offset)).unwrap());
        cluster.set_held(true);
        first.step(Duration::ZERO, &mut |_| Ok(())).unwrap();
        first.remote().forget();
        cluster.set_held(false);
        let begun = cluster.sequence();
        cluster.arrive_at(begun + arrives_behind);
        cluster.full_at(begun + kill);
        let mut new = Side { takes_over: true, ..Side::new([8; 16]) };
        let mut second = new.start(&cluster);
        let _ = new.run(&mut second, &offsets, 12, false).unwrap();
        second.remote().forget();
        cluster.full_at(0);
        let mut third = Side { takes_over: true, ..Side::new([9; 16]) };
        let mut copier = third.start(&cluster);
        assert!(third.run(&mut copier, &offsets, 1000, true).unwrap(), "{kill} {arrives_behind}: {:?}", copier.error());
        cluster.arrive();
        check(&cluster, &offsets);
    }
}

#[test]
fn an_ended_bridge_leaves_two_messages_and_needs_no_fence() {
    let (cluster, mut side, offsets) = (MemoryCluster::new(1, Faults::default()), Side::new(JOURNAL), offsets(40));
    for round in 1..4 {
        let mut copier = side.start(&cluster);
        assert!(side.run(&mut copier, &offsets[..10 * round], 1000, true).unwrap());
        copier.push_end();
        assert!(side.run(&mut copier, &[], 1000, true).unwrap());
        assert_eq!(cluster.sequence(), (12 * round) as u64);
    }
    check(&cluster, &offsets[..30]);
    // One that was killed needs a fence.
    let mut killed = side.start(&cluster);
    assert!(side.run(&mut killed, &offsets, 1000, true).unwrap());
    let before = cluster.sequence();
    let mut copier = side.start(&cluster);
    assert!(side.run(&mut copier, &offsets, 1000, true).unwrap());
    assert_eq!(cluster.sequence() - before, 1 + WINDOW.messages as u64);
}

/// Somebody publishes without an expected number, so that a message of the window is refused and the next one fits.
#[test]
fn a_message_that_takes_a_number_of_the_window_is_found() {
    let (cluster, mut side, offsets) = (MemoryCluster::new(1, Faults::default()), Side::new(JOURNAL), offsets(40));
    let mut copier = side.start(&cluster);
    assert!(side.run(&mut copier, &offsets[..10], 1000, true).unwrap());
    offsets[10..20].iter().for_each(|offset| copier.push(record(*offset)).unwrap());
    cluster.set_held(true);
    copier.step(Duration::ZERO, &mut |_| Ok(())).unwrap();
    cluster.write_foreign();
    copier.remote().forget();
    copier.doubt(RemoteError::Transient("the connection is lost".to_owned())).unwrap();
    cluster.arrive();
    cluster.set_held(false);
    assert_eq!(cluster.records().len(), 19, "all but one fit");
    let why = (0..100).find_map(|_| copier.step(Duration::ZERO, &mut |_| Ok(())).err());
    assert!(matches!(why, Some(Stopped::Foreign { .. })), "{why:?}");
    assert_eq!(copier.confirmed(), offsets[9] + 1);
    // A later start finds it too, as well as one behind which it was removed.
    for remove in [false, true] {
        if remove {
            let foreign = cluster.heads().iter().position(Option::is_none).unwrap();
            cluster.remove(foreign as u64 + 1);
        }
        let mut again = side.start(&cluster);
        let why = side.run(&mut again, &offsets, 1000, false).unwrap_err();
        match remove {
            false => assert!(matches!(why, Stopped::Foreign { .. }), "{why}"),
            true => assert!(matches!(why, Stopped::Broken { .. }), "{why}"),
        }
    }
}

/// The copier, and what became of the stream behind its back.
fn stopped(change: impl FnOnce(&MemoryCluster)) -> Stopped {
    let (cluster, mut side, offsets) = (MemoryCluster::new(1, Faults::default()), Side::new(JOURNAL), offsets(60));
    let mut copier = side.start(&cluster);
    assert!(side.run(&mut copier, &offsets[..20], 1000, true).unwrap());
    change(&cluster);
    // Writes on for a moment, as it may not know it yet.
    let _ = side.run(&mut copier, &offsets[..40], 1000, true);
    copier.looked = Instant::now() - LOOK_EVERY;
    let why = side.run(&mut copier, &offsets, 1000, false);
    let again = side.start(&cluster);
    let why_again = side.run(&mut { again }, &offsets, 1000, false);
    assert_eq!(
        why.clone().err().map(|why| std::mem::discriminant(&why)),
        why_again.err().map(|why| std::mem::discriminant(&why))
    );
    why.unwrap_err()
}

#[test]
fn a_stream_that_somebody_else_has_changed_stops_the_bridge() {
    assert!(matches!(stopped(MemoryCluster::purge), Stopped::Lost { next: 0, .. }));
    assert!(matches!(stopped(MemoryCluster::recreate), Stopped::Lost { next: 0, .. }));
    assert!(matches!(stopped(MemoryCluster::write_foreign), Stopped::Foreign { .. }));
}

#[test]
fn a_journal_that_has_other_records_than_the_stream_is_not_copied() {
    let (cluster, mut side, offsets) = (MemoryCluster::new(1, Faults::default()), Side::new(JOURNAL), offsets(40));
    let mut copier = side.start(&cluster);
    assert!(side.run(&mut copier, &offsets[..20], 1000, true).unwrap());
    // A copy of the directory, which has gone on by itself, without the epoch: its record differs.
    let mut other = Side { takes_over: true, ..Side::new([8; 16]) };
    let mut copier = other.start(&cluster);
    copier.step(Duration::ZERO, &mut |_| Ok(())).unwrap();
    assert_eq!(copier.ahead(), Some(offsets[19] + 1));
    let wrong = Record { value: b"other".to_vec(), ..record(offsets[19]) };
    offsets[..19].iter().for_each(|offset| copier.push(record(*offset)).unwrap());
    assert!(matches!(copier.push(wrong), Err(Stopped::Diverged { .. })));
    // Without leave nothing is taken over.
    let mut third = Side::new([9; 16]);
    let mut copier = third.start(&cluster);
    let why = third.run(&mut copier, &offsets, 10, false);
    assert!(matches!(why, Err(Stopped::Owned { .. })), "{why:?}");
    check(&cluster, &offsets[..20]);
}

#[test]
fn a_full_stream_and_an_outage_only_delay() {
    let (cluster, mut side, offsets) = (MemoryCluster::new(1, Faults::default()), Side::new(JOURNAL), offsets(60));
    let mut copier = side.start(&cluster);
    assert!(side.run(&mut copier, &offsets[..20], 1000, true).unwrap());
    assert!(side.run(&mut copier, &offsets[..30], 1000, true).unwrap(), "{:?}", copier.error());
    type Outage = fn(&MemoryCluster, bool);
    let outages = [(MemoryCluster::set_full as Outage, 45), (MemoryCluster::set_down as Outage, offsets.len())];
    for (outage, end) in outages {
        outage(&cluster, true);
        assert!(!side.run(&mut copier, &offsets[..end], 50, false).unwrap());
        assert!(copier.error().is_some() && copier.entries.len() <= 2 * WINDOW.messages);
        outage(&cluster, false);
        // What was pushed already is not pushed again.
        let until = Instant::now() + Duration::from_secs(30);
        while !copier.is_idle() && Instant::now() < until {
            copier.step(Duration::ZERO, &mut |_| Ok(())).unwrap();
        }
        side.next = copier.confirmed();
    }
    assert!(side.run(&mut copier, &offsets, 1000, true).unwrap());
    check(&cluster, &offsets);
}

/// Servers without a majority say where the stream stands, and confirm nothing.
#[test]
fn an_error_is_told_until_a_message_is_confirmed() {
    let (cluster, mut side, offsets) = (MemoryCluster::new(1, Faults::default()), Side::new(JOURNAL), offsets(60));
    let mut copier = side.start(&cluster);
    assert!(side.run(&mut copier, &offsets[..20], 1000, true).unwrap());
    cluster.set_faults(Faults { message_lost: 1000, ..Faults::default() });
    offsets[20..30].iter().for_each(|offset| copier.push(record(*offset)).unwrap());
    let mut step = || copier.step(Duration::ZERO, &mut |_| Ok(())).map(|_| copier.error().is_some()).unwrap();
    assert!((0..100).any(|_| step()));
    assert!((0..100).all(|_| step()));
    cluster.set_faults(Faults::default());
    assert!((0..1000).any(|_| !step()));
}

#[test]
fn skipped_offsets_stand_in_the_stream() {
    let (cluster, mut side) = (MemoryCluster::new(1, Faults::default()), Side::new(JOURNAL));
    let mut copier = side.start(&cluster);
    copier.push(record(3)).unwrap();
    copier.push_skip(4, 9).unwrap();
    copier.push(record(9)).unwrap();
    for _ in 0..100 {
        copier.step(Duration::ZERO, &mut |_| Ok(())).unwrap();
    }
    let skipped: Vec<_> = std::iter::once(4..9).collect();
    assert_eq!((cluster.skipped(), copier.confirmed()), (skipped.clone(), 10));
    assert_eq!(copier.take_skipped(), skipped);
    check(&cluster, &[3, 9]);
}

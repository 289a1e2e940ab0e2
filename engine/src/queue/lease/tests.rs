//! Tests that compare the leases with a simple model, and tests of edge cases.

use super::*;
use crate::base::backoff::Backoff;
use proptest::prelude::*;

/// A model of the leases that makes the same guarantees with a plain list, which is searched from end to end.
struct Naive {
    settings: LeaseSettings,
    all: Vec<KnownMessage>,
    given: u64,
}

#[derive(Clone, Debug)]
struct KnownMessage {
    partition: u32,
    offset: u64,
    attempts: u32,
    /// The number of the message's lease, which lasts until `at`. `None` if the message may be leased from `at` on.
    holder: Option<u64>,
    at: Duration,
    dead: Option<DeathCause>,
}

impl Naive {
    fn expire(&mut self, now: Duration) {
        for known in &mut self.all {
            if known.holder.is_some() && known.at <= now {
                known.holder = None;
                if self.settings.max_attempts.is_some_and(|max| known.attempts >= max) {
                    known.dead = Some(DeathCause::Expired);
                }
            }
        }
    }

    fn is_blocked(&self, it: &KnownMessage) -> bool {
        let others = self.all.iter().filter(|other| other.partition == it.partition && other.offset != it.offset);
        let in_the_way =
            |other: &KnownMessage| other.holder.is_some() || other.dead.is_some() || other.offset < it.offset;
        self.settings.order == Order::Strict && others.into_iter().any(in_the_way)
    }

    /// The earliest time `at` of the messages that may be leased at `now`; `None` if none may be.
    fn due(&self, now: Duration) -> Option<Duration> {
        let free =
            |it: &&KnownMessage| it.holder.is_none() && it.dead.is_none() && it.at <= now && !self.is_blocked(it);
        self.all.iter().filter(free).map(|it| it.at).min()
    }

    fn held(&mut self, number: u64, now: Duration) -> Option<usize> {
        self.all.iter().position(|it| it.holder == Some(number) && it.at > now)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u32),
    Lease,
    Ack(prop::sample::Index),
    Nack(prop::sample::Index, u64),
    Renew(prop::sample::Index, u64),
    Delete(prop::sample::Index),
    Wait(u64),
    Expire(usize),
    ToDeadLetter,
    Restore(prop::sample::Index, u64),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0..3u32).prop_map(Step::Admit),
        6 => Just(Step::Lease),
        4 => index().prop_map(Step::Ack),
        4 => (index(), 0..15u64).prop_map(|(at, delay)| Step::Nack(at, delay)),
        2 => (index(), 0..15u64).prop_map(|(at, long)| Step::Renew(at, long)),
        1 => index().prop_map(Step::Delete),
        6 => (0..12u64).prop_map(Step::Wait),
        2 => (0..4usize).prop_map(Step::Expire),
        2 => Just(Step::ToDeadLetter),
        1 => (index(), 0..5u64).prop_map(|(at, due)| Step::Restore(at, due)),
        1 => (0..20u8).prop_map(|rare| if rare == 0 { Step::Purge } else { Step::Lease }),
    ]
}

const MS: fn(u64) -> Duration = Duration::from_millis;

fn run(order: Order, steps: Vec<Step>) {
    run_with(order, steps, false);
}

fn run_with(order: Order, steps: Vec<Step>, accept_late_acks: bool) {
    let backoff = Backoff::NONE;
    let settings =
        LeaseSettings { visibility: MS(10), max_attempts: Some(3), order, max_messages: 8, max_bytes: 65, backoff };
    let mut leases = Leases::new(settings, |_: &u64| 10);
    leases.accept_late_acks = accept_late_acks;
    let mut naive = Naive { settings, all: Vec::new(), given: 0 };
    let mut now = MS(0);
    let mut next = [0u64; 3];
    // All leases that were given, each with its number in the model.
    let mut tokens: Vec<(LeaseId, u64)> = Vec::new();
    // Messages that were removed, as partition and offset; a later step may restore them.
    let mut gone: Vec<(u32, u64)> = Vec::new();
    for step in steps {
        naive.expire(now);
        match step {
            Step::Admit(partition) => {
                let room = naive.all.len() < 8 && naive.all.len() * 10 < 65;
                assert_eq!(leases.has_room(), room);
                let free = order == Order::Relaxed || naive.all.iter().all(|it| it.partition != partition);
                assert_eq!(leases.may_follow(partition), free);
                if room && free {
                    let offset = next[partition as usize];
                    next[partition as usize] += 2;
                    let leased = leases.admit(partition, offset, offset, now);
                    naive.given += 1;
                    assert_eq!((leased.attempt, leased.deadline, leased.message), (1, now + MS(10), offset));
                    tokens.push((leased.id, naive.given));
                    let holder = Some(naive.given);
                    naive.all.push(KnownMessage {
                        partition,
                        offset,
                        attempts: 1,
                        holder,
                        at: now + MS(10),
                        dead: None,
                    });
                }
            }
            Step::Lease => {
                let due = naive.due(now);
                let leased = leases.lease_due(now);
                assert_eq!(leased.is_some(), due.is_some(), "{leased:?} {:?}", naive.all);
                if let Some(leased) = leased {
                    naive.given += 1;
                    let known = |it: &KnownMessage| (it.partition, it.offset) == (leased.partition, leased.offset);
                    let at = naive.all.iter().position(known).expect("what was granted is known");
                    assert!(!naive.is_blocked(&naive.all[at]));
                    let it = &mut naive.all[at];
                    assert_eq!((it.holder, it.dead.clone()), (None, None), "one holder");
                    // In strict order a message is due when the one before it was removed, a time that the model does
                    // not record.
                    assert!(if order == Order::Strict { it.at <= now } else { Some(it.at) == due }, "{it:?}");
                    it.attempts += 1;
                    it.holder = Some(naive.given);
                    it.at = now + MS(10);
                    assert_eq!((leased.attempt, leased.deadline), (it.attempts, it.at));
                    assert!(it.attempts <= 3);
                    tokens.push((leased.id, naive.given));
                }
            }
            Step::Ack(at) if !tokens.is_empty() => {
                let (id, number) = *at.get(&tokens);
                let held = naive.held(number, now);
                assert_eq!(leases.ack(id, now).is_ok(), held.is_some());
                held.inspect(|&held| {
                    gone.push({
                        let it = naive.all.remove(held);
                        (it.partition, it.offset)
                    })
                });
            }
            Step::Nack(at, delay) if !tokens.is_empty() => {
                let (id, number) = *at.get(&tokens);
                let held = naive.held(number, now);
                let answer = leases.nack(id, now, MS(delay), "no");
                assert_eq!(answer.is_ok(), held.is_some());
                if let Some(held) = held {
                    let it = &mut naive.all[held];
                    it.holder = None;
                    it.at = now + MS(delay);
                    it.dead = (it.attempts == 3).then(|| DeathCause::Refused("no".into()));
                    assert_eq!(answer, Ok(it.dead.is_some()));
                }
            }
            Step::Renew(at, long) if !tokens.is_empty() => {
                let (id, number) = *at.get(&tokens);
                let held = naive.held(number, now);
                let answer = leases.renew(id, now, MS(long));
                assert_eq!(answer.ok(), held.map(|_| now + MS(long)));
                held.inspect(|&held| naive.all[held].at = now + MS(long));
            }
            Step::Delete(at) if !naive.all.is_empty() => {
                let it = naive.all.remove(at.index(naive.all.len()));
                assert!(leases.delete(it.partition, it.offset));
                assert!(!leases.delete(it.partition, it.offset));
            }
            Step::Wait(long) => now += MS(long),
            Step::Expire(limit) => _ = leases.expire(now, limit),
            Step::ToDeadLetter => {
                // A message whose last lease has expired becomes dying only when `expire` is called.
                leases.expire(now, usize::MAX);
                if let Some(dead) = leases.dying() {
                    let found =
                        naive.all.iter().position(|it| (it.partition, it.offset) == (dead.partition, dead.offset));
                    let it = naive.all.remove(found.expect("known"));
                    assert_eq!((it.dead.as_ref(), it.attempts), (Some(dead.cause), dead.attempts));
                    assert_eq!(dead.attempts, 3);
                    gone.push((it.partition, it.offset));
                    leases.dead_letter_done();
                } else {
                    assert!(naive.all.iter().all(|it| it.dead.is_none()));
                }
            }
            Step::Restore(at, due) if !gone.is_empty() => {
                let (partition, offset) = gone.remove(at.index(gone.len()));
                assert!(leases.restore(partition, offset, offset, now, MS(due)));
                assert!(!leases.restore(partition, offset, offset, now, MS(0)));
                let at = now + MS(due);
                naive.all.push(KnownMessage { partition, offset, attempts: 0, holder: None, at, dead: None });
            }
            Step::Purge => {
                naive.expire(now);
                leases.expire(now, usize::MAX);
                let before = naive.all.len();
                naive.all.retain(|it| it.holder.is_some());
                assert_eq!(leases.purge(), before - naive.all.len());
            }
            _ => {}
        }
        naive.expire(now);
        assert_eq!(leases.len(), naive.all.len());
        assert_eq!(leases.counts().bytes, naive.all.len() * 10);
        for it in &naive.all {
            assert!(leases.contains(it.partition, it.offset));
        }
        // Each message can be leased now, or its expired lease can be ended now, or `next_due` is no later than the
        // time at which the message is due.
        let next_due = leases.next_due(now);
        for it in naive.all.iter().filter(|it| it.dead.is_none() && !naive.is_blocked(it)) {
            let has_alarm = next_due.is_some_and(|due| due <= it.at.max(now));
            assert!(has_alarm || (it.at <= now && leases.is_due(now)), "{it:?} {next_due:?} at {now:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_calls_keeps_the_promises_of_a_naive_list(steps in prop::collection::vec(step(), 1..120)) {
        run(Order::Relaxed, steps.clone());
        run(Order::Strict, steps);
    }
}

/// Checks that the model can fail: it notices an ack that is accepted after the lease's end.
#[test]
fn an_ack_after_the_end_that_is_accepted_does_not_go_unnoticed() {
    let mut runner = prop::test_runner::TestRunner::deterministic();
    let found = runner.run(&prop::collection::vec(step(), 1..120), |steps| {
        let run = std::panic::AssertUnwindSafe(|| run_with(Order::Relaxed, steps, true));
        std::panic::catch_unwind(run).map_err(|_| TestCaseError::fail("noticed"))
    });
    assert!(found.is_err());
}

fn leases(order: Order) -> Leases<u64> {
    let (max_messages, max_bytes) = (usize::MAX, usize::MAX);
    Leases::new(
        LeaseSettings {
            visibility: MS(10),
            max_attempts: Some(2),
            order,
            max_messages,
            max_bytes,
            backoff: Backoff::NONE,
        },
        |_| 8,
    )
}

/// Deleting a later message of a partition once added the first one to the waiting messages a second time, so that two
/// workers got it.
#[test]
fn deleting_behind_the_first_of_a_partition_leaves_the_first_where_it_is() {
    let mut leases = leases(Order::Strict);
    for offset in 0..3 {
        assert!(leases.restore(0, offset, offset, MS(0), MS(0)));
    }
    assert!(leases.delete(0, 2));
    assert_eq!(leases.lease_due(MS(0)).map(|leased| leased.offset), Some(0));
    assert_eq!(leases.lease_due(MS(0)), None, "its partition has one out");
    assert_eq!(leases.purge(), 1);
    assert_eq!(leases.counts().waiting, 0);
}

#[test]
fn a_lease_is_over_at_its_deadline_and_not_a_nanosecond_before() {
    let mut leases = leases(Order::Relaxed);
    let early = leases.admit(0, 0, 0, MS(0));
    assert_eq!(leases.ack(early.id, MS(10) - Duration::from_nanos(1)), Ok(()));
    let late = leases.admit(0, 1, 1, MS(0));
    assert_eq!(leases.ack(late.id, MS(10)), Err(LeaseEnded));
    assert_eq!(leases.renew(late.id, MS(10), MS(10)), Err(LeaseEnded));
    assert_eq!(leases.nack(late.id, MS(10), MS(0), ""), Err(LeaseEnded));
    assert_eq!(leases.lease_due(MS(10)).map(|leased| leased.attempt), Some(2));
}

#[test]
fn the_holder_of_a_slot_used_again_has_no_say_over_its_new_message() {
    let mut leases = leases(Order::Relaxed);
    let first = leases.admit(0, 0, 0, MS(0));
    assert_eq!(leases.ack(first.id, MS(1)), Ok(()));
    let second = leases.admit(0, 1, 1, MS(1));
    assert_eq!(leases.ack(first.id, MS(2)), Err(LeaseEnded));
    assert_eq!(leases.ack(second.id, MS(2)), Ok(()));
}

#[test]
fn the_last_message_may_go_beyond_the_limit_of_bytes_and_none_after_it() {
    let settings = LeaseSettings { max_messages: 9, max_bytes: 10, ..*leases(Order::Relaxed).settings() };
    let mut leases = Leases::new(settings, |body: &Vec<u8>| body.len());
    let leased = leases.admit(0, 0, vec![0; 100], MS(0));
    assert!(!leases.has_room());
    leases.ack(leased.id, MS(1)).unwrap();
    assert!(leases.has_room());
}

#[test]
fn times_beyond_what_the_clock_can_count_are_for_ever() {
    let mut leases = leases(Order::Relaxed);
    let leased = leases.admit(0, 0, 0, MS(0));
    leases.renew(leased.id, MS(1), Duration::MAX).unwrap();
    assert!(!leases.expire(Duration::from_secs(1 << 30), 9));
    assert_eq!(leases.ack(leased.id, Duration::from_secs(1 << 30)), Ok(()));
}

/// Once a dead letter is published, its message is neither deleted nor purged: otherwise there would be a letter of a
/// deleted message.
#[test]
fn what_is_a_letter_by_now_is_not_deleted_or_purged() {
    let mut leases = leases(Order::Relaxed);
    for offset in 0..2 {
        assert!(leases.restore(0, offset, offset, MS(0), MS(0)));
    }
    for _ in 0..2 {
        let leased = leases.lease_due(MS(0)).unwrap();
        assert_eq!(leases.nack(leased.id, MS(0), MS(0), "no"), Ok(leased.attempt == 2));
        let leased = leases.lease_due(MS(0)).unwrap();
        assert_eq!(leases.nack(leased.id, MS(0), MS(0), "no"), Ok(leased.attempt == 2));
    }
    assert_eq!(leases.counts().dying, 2);
    leases.dead_letter_written();
    assert!(!leases.delete(0, 0), "a letter");
    assert_eq!(leases.purge(), 1, "the other one is dying still");
    assert!(leases.settle_dead_letter(0, 0));
    assert!(leases.is_empty());
}

/// After a restart, a partition in strict order may have more than one message that is leased or dying: the dying ones
/// whose dead letters are too large, for which the others did not wait.
#[test]
fn in_strict_order_a_message_that_is_leased_or_dying_after_a_restart_is_not_leased_again() {
    let known = |phase| types::KnownMessage { number: 1, attempts: 2, phase };
    let dying = || known(Phase::Dying(DeathCause::Expired));
    let mut two_dying = leases(Order::Strict);
    assert!(two_dying.recall(0, 0, 0, dying()));
    assert!(two_dying.recall(0, 1, 1, dying()));
    assert!(two_dying.recall(0, 2, 2, known(Phase::Waiting(MS(0)))));
    assert!(two_dying.delete(0, 1));
    assert!(two_dying.lease_due(MS(1)).is_none(), "the first one is dying");
    two_dying.set_dying_aside();
    assert_eq!(two_dying.lease_due(MS(1)).unwrap().offset, 2);
    let counts = two_dying.counts();
    assert_eq!((counts.dying, counts.leased, counts.waiting), (1, 1, 0));

    let mut leased_first = leases(Order::Strict);
    assert!(leased_first.recall(0, 0, 0, known(Phase::Leased(MS(9)))));
    assert!(leased_first.recall(0, 1, 1, dying()));
    leased_first.set_dying_aside();
    assert!(leased_first.lease_due(MS(1)).is_none(), "the first one is leased");
    let counts = leased_first.counts();
    assert_eq!((counts.dying, counts.leased, counts.waiting), (1, 1, 0));
    assert!(leased_first.delete(0, 1));
    assert!(leased_first.delete(0, 0));
    assert!(leased_first.is_empty());
    assert_eq!(leased_first.counts().dying, 0);
}

//! The messages of `run` and `peers`, and the checks of what arrived.

/// A message of `N` words. Each word is the message's number; in `run` the first one is the intended time instead. The producer
/// writes every word and the consumer reads every word.
#[derive(Clone, Copy, Debug)]
pub struct Payload<const N: usize>([u64; N]);

impl<const N: usize> Payload<N> {
    /// A message with this number.
    #[inline(always)]
    pub fn new(value: u64) -> Self {
        Self([value; N])
    }

    /// Writes the number in place.
    #[inline(always)]
    pub fn fill(&mut self, value: u64) {
        self.0 = [value; N];
    }

    /// Writes the number and the intended time, in ticks of the clock, in place.
    #[inline(always)]
    pub fn fill_timed(&mut self, intended: u64, value: u64) {
        self.0 = [value; N];
        self.0[0] = intended;
    }

    /// The number.
    #[inline(always)]
    pub fn value(&self) -> u64 {
        self.0[N - 1]
    }

    /// The intended time of the message, in ticks of the clock, if it was [written](Self::fill_timed) with one;
    /// otherwise its number.
    #[inline(always)]
    pub fn intended(&self) -> u64 {
        self.0[0]
    }

    /// True if all words but the first are equal.
    #[inline(always)]
    fn is_intact(&self) -> bool {
        self.0[1..].iter().fold(0, |astray, word| astray | (word ^ self.value())) == 0
    }

    /// The message of these words.
    #[inline(always)]
    pub fn from_words(words: [u64; N]) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, word| sum.wrapping_add(*word))
    }
}

impl<const N: usize> Default for Payload<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

/// The lowest bit of the producer's index in a message's number. The bits below count the messages of the producer.
const PRODUCER_SHIFT: u32 = 48;

/// The most producers that a check can tell apart.
pub const MOST_PRODUCERS: usize = 8;

/// The first number of a producer.
#[inline(always)]
pub const fn first_of(producer: usize) -> u64 {
    (producer as u64) << PRODUCER_SHIFT
}

/// The index of the producer of a message with this number.
#[inline(always)]
pub const fn producer_of(number: u64) -> usize {
    (number >> PRODUCER_SHIFT) as usize % MOST_PRODUCERS
}

/// A check that each message arrives once, in its producer's order, with every word intact.
pub trait Check: Default + Send + 'static {
    /// Checks a message that arrived.
    fn see<const N: usize>(&mut self, message: &Payload<N>);

    /// The verdict, where each of `producers` has sent `each` messages.
    ///
    /// # Errors
    ///
    /// What was wrong, in words.
    fn verdict<const N: usize>(&self, producers: usize, each: u64) -> Result<(), String>;
}

/// The check for one producer.
#[derive(Clone, Debug, Default)]
pub struct InOrder {
    next: u64,
    sum: u64,
    astray: u64,
}

impl Check for InOrder {
    #[inline(always)]
    fn see<const N: usize>(&mut self, message: &Payload<N>) {
        self.astray |= message.value() ^ self.next;
        self.next += 1;
        self.sum = self.sum.wrapping_add(message.sum());
    }

    fn verdict<const N: usize>(&self, _producers: usize, each: u64) -> Result<(), String> {
        verdict::<N>(self.next, self.sum, self.astray == 0, 1, each)
    }
}

/// The check for several producers: the messages of each in its own order.
#[derive(Clone, Debug, Default)]
pub struct PerProducer {
    next: [u64; MOST_PRODUCERS],
    sum: u64,
    astray: u64,
}

impl Check for PerProducer {
    #[inline(always)]
    fn see<const N: usize>(&mut self, message: &Payload<N>) {
        let value = message.value();
        let next = &mut self.next[producer_of(value)];
        self.astray |= (value & ((1 << PRODUCER_SHIFT) - 1)) ^ *next;
        *next += 1;
        self.sum = self.sum.wrapping_add(message.sum());
    }

    fn verdict<const N: usize>(&self, producers: usize, each: u64) -> Result<(), String> {
        let evenly = self.next[..producers].iter().all(|next| *next == each);
        let seen = self.next.iter().sum();
        verdict::<N>(seen, self.sum, self.astray == 0 && evenly, producers, each)
    }
}

/// The check of `run`: unlike the others it reports missing numbers apart, since a full ring may drop messages and
/// workers share a stream.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    next: [u64; MOST_PRODUCERS],
    /// Count of the messages.
    pub count: u64,
    /// The sum of their numbers.
    pub sum: u64,
    damaged: u64,
    backward: u64,
    gaps: u64,
}

impl Seen {
    /// Checks a message that arrived.
    #[inline(always)]
    pub fn see<const N: usize>(&mut self, message: &Payload<N>) {
        let value = message.value();
        let number = value & ((1 << PRODUCER_SHIFT) - 1);
        let next = &mut self.next[producer_of(value)];
        self.damaged += u64::from(!message.is_intact());
        self.backward += u64::from(number < *next);
        self.gaps += u64::from(number > *next);
        *next = number + 1;
        self.count += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// What is wrong with the stream, in words; `None` if nothing is. If `shares`, missing numbers are no fault.
    pub fn fault(&self, shares: bool) -> Option<String> {
        if self.damaged > 0 {
            Some(format!("{} messages were damaged", self.damaged))
        } else if self.backward > 0 {
            Some(format!("{} messages came twice or out of order", self.backward))
        } else if !shares && self.gaps > 0 {
            Some(format!("messages are missing in {} places", self.gaps))
        } else {
            None
        }
    }
}

fn verdict<const N: usize>(seen: u64, sum: u64, ordered: bool, producers: usize, each: u64) -> Result<(), String> {
    let wanted = producers as u64 * each;
    if seen != wanted {
        return Err(format!("{seen} messages arrived of {wanted}"));
    }
    if !ordered {
        return Err("messages arrived out of order, twice, or not at all".to_owned());
    }
    let run = (u128::from(each) * u128::from(each.saturating_sub(1)) / 2) as u64;
    let expected = (0..producers)
        .fold(0u64, |total, producer| total.wrapping_add(first_of(producer).wrapping_mul(each)).wrapping_add(run));
    if sum != expected.wrapping_mul(N as u64) {
        return Err("the sum over all words is wrong: a message was damaged".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed<C: Check, const N: usize>(messages: impl Iterator<Item = Payload<N>>) -> C {
        let mut check = C::default();
        messages.for_each(|message| check.see(&message));
        check
    }

    #[test]
    fn accepts_what_is_right() {
        let check: InOrder = feed((0..100).map(Payload::<8>::new));
        assert_eq!(check.verdict::<8>(1, 100), Ok(()));
        let mixed = (0..50).flat_map(|each| [each, first_of(1) + each]).map(Payload::<1>::new);
        let check: PerProducer = feed(mixed);
        assert_eq!(check.verdict::<1>(2, 50), Ok(()));
    }

    #[test]
    fn finds_what_is_wrong() {
        let lost: InOrder = feed((0..99).map(Payload::<1>::new));
        assert!(lost.verdict::<1>(1, 100).unwrap_err().contains("99"));
        let swapped: InOrder = feed([1, 0, 2].into_iter().map(Payload::<1>::new));
        assert!(swapped.verdict::<1>(1, 3).unwrap_err().contains("order"));
        for word in 0..8 {
            let mut torn = Payload::<8>::new(1);
            torn.0[word] = 9;
            let damaged: InOrder = feed([Payload::new(0), torn].into_iter());
            // The last word is the number.
            let wanted = if word == 7 { "order" } else { "damaged" };
            assert!(damaged.verdict::<8>(1, 2).unwrap_err().contains(wanted), "{word}");
        }
        let twice: PerProducer = feed([0, 0].into_iter().map(Payload::<1>::new));
        assert!(twice.verdict::<1>(1, 2).is_err());
    }

    #[test]
    fn finds_gaps_repeats_and_damage() {
        let message = |number| {
            let mut message = Payload::<4>::default();
            message.fill_timed(1, number);
            message
        };
        let see = |numbers: &[u64]| {
            let mut seen = Seen::default();
            numbers.iter().for_each(|number| seen.see(&message(*number)));
            seen
        };
        assert_eq!(see(&[0, 1, first_of(1), 2]).fault(false), None);
        assert!(see(&[0, 2]).fault(false).unwrap().contains("missing"));
        assert_eq!(see(&[0, 2]).fault(true), None);
        assert!(see(&[0, 0]).fault(true).unwrap().contains("twice"));
        for word in 1..4 {
            let mut broken = message(0);
            broken.0[word] = 7;
            let mut seen = Seen::default();
            seen.see(&broken);
            assert!(seen.fault(false).unwrap().contains("damaged"));
        }
    }
}

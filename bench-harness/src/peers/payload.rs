//! What travels: words that all carry the message's number, and the check of what arrived.

/// A message of `N` words. Every word is written by the producer and read by the consumer.
#[derive(Clone, Copy, Debug)]
pub struct Payload<const N: usize>([u64; N]);

impl<const N: usize> Payload<N> {
    /// A message with that number.
    #[inline(always)]
    pub fn new(value: u64) -> Self {
        Self([value; N])
    }

    /// Writes the number in place.
    #[inline(always)]
    pub fn fill(&mut self, value: u64) {
        self.0 = [value; N];
    }

    /// The number.
    #[inline(always)]
    pub fn value(&self) -> u64 {
        self.0[0]
    }

    /// The words.
    #[inline(always)]
    pub fn words(&self) -> &[u64; N] {
        &self.0
    }

    /// The message made of these words.
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

/// Which producer sent a message stands above its number.
const PRODUCER_SHIFT: u32 = 48;

/// The most producers that a check keeps apart.
pub const MOST_PRODUCERS: usize = 8;

/// The first number of a producer.
#[inline(always)]
pub const fn first_of(producer: usize) -> u64 {
    (producer as u64) << PRODUCER_SHIFT
}

/// Watches what arrives: each message once, in its producer's order, with every word intact.
pub trait Check: Default + Send + 'static {
    /// One message arrived.
    fn see<const N: usize>(&mut self, message: &Payload<N>);

    /// Whether exactly `each` messages of each of `producers` arrived, in order.
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

/// The check for several producers: each one's messages in its own order.
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
        let next = &mut self.next[(value >> PRODUCER_SHIFT) as usize % MOST_PRODUCERS];
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
        let mut torn = Payload::<8>::new(1);
        torn.0[7] = 9;
        let damaged: InOrder = feed([Payload::new(0), torn].into_iter());
        assert!(damaged.verdict::<8>(1, 2).unwrap_err().contains("damaged"));
        let twice: PerProducer = feed([0, 0].into_iter().map(Payload::<1>::new));
        assert!(twice.verdict::<1>(1, 2).is_err());
    }
}

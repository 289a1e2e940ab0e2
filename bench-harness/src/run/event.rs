//! What travels in `run`: the intended time, the number, and words that tell damage.

use crate::peers::payload::{MOST_PRODUCERS, first_of};

/// An event of `W` words.
#[derive(Clone, Copy, Debug)]
pub struct Event<const W: usize>([u64; W]);

/// Bytes a message that `run` knows.
pub const PAYLOADS: [u64; 4] = [32, 64, 128, 256];

const NUMBER_BITS: u32 = first_of(1).trailing_zeros();

impl<const W: usize> Default for Event<W> {
    fn default() -> Self {
        Self([0; W])
    }
}

impl<const W: usize> Event<W> {
    /// Writes the event in place.
    #[inline(always)]
    pub fn fill(&mut self, intended: u64, number: u64) {
        self.0 = [number; W];
        self.0[0] = intended;
    }

    /// When it was meant to be sent, in ticks of the clock.
    #[inline(always)]
    pub fn intended(&self) -> u64 {
        self.0[0]
    }

    /// Producer and number.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        self.0[1]
    }

    #[inline(always)]
    fn intact(&self) -> bool {
        self.0[2..].iter().fold(0, |astray, word| astray | (word ^ self.0[1])) == 0
    }
}

/// What one consumer saw of the stream.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    next: [u64; MOST_PRODUCERS],
    /// Events seen.
    pub count: u64,
    /// The sum of their numbers.
    pub sum: u64,
    damaged: u64,
    backward: u64,
    gaps: u64,
}

impl Seen {
    /// One event arrived.
    #[inline(always)]
    pub fn see<const W: usize>(&mut self, event: &Event<W>) {
        let value = event.number();
        let number = value & ((1 << NUMBER_BITS) - 1);
        let next = &mut self.next[(value >> NUMBER_BITS) as usize % MOST_PRODUCERS];
        self.damaged += u64::from(!event.intact());
        self.backward += u64::from(number < *next);
        self.gaps += u64::from(number > *next);
        *next = number + 1;
        self.count += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// What is wrong with the stream, if anything. Workers that share one may skip numbers.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event<4> {
        let mut event = Event::default();
        event.fill(1, number);
        event
    }

    #[test]
    fn finds_gaps_repeats_and_damage() {
        let see = |numbers: &[u64]| {
            let mut seen = Seen::default();
            numbers.iter().for_each(|number| seen.see(&event(*number)));
            seen
        };
        assert_eq!(see(&[0, 1, first_of(1), 2]).fault(false), None);
        assert!(see(&[0, 2]).fault(false).unwrap().contains("missing"));
        assert_eq!(see(&[0, 2]).fault(true), None);
        assert!(see(&[0, 0]).fault(true).unwrap().contains("twice"));
        let mut broken = event(0);
        broken.0[3] = 7;
        let mut seen = Seen::default();
        seen.see(&broken);
        assert!(seen.fault(false).unwrap().contains("damaged"));
    }
}

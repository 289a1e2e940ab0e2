//! Upgrades of events: functions that make an event of a newer layout from one of an older layout.

use crate::base::threads::blaming;
use crate::event::codec::{Persist, Unreadable};
use crate::event::layout::{fields, is_same};
use crate::event::message::{Message, schema_layout};
use slipring_ring::shared::{LayoutField, NumberType};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Appends the bytes of the newer event, given those of the older one.
type Convert = dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), Unreadable> + Send + Sync;

/// The steps from the older layouts of a topic's events to the present one.
///
/// ```
/// use slipring::topic::Upgrades;
///
/// slipring::plain_event! {
///     #[derive(Default)]
///     struct First { cents: u32, size: u32 }
/// }
/// slipring::plain_event! {
///     #[derive(Default)]
///     struct Second { cents: u64, size: u64 }
/// }
/// slipring::plain_event! {
///     #[derive(Default)]
///     struct Third { ticks: i64, size: u64 }
/// }
///
/// let upgrades = Upgrades::new()
///     .step(|old: &First, new: &mut Second| *new = Second { cents: old.cents.into(), size: old.size.into() })
///     .step(|old: &Second, new: &mut Third| *new = Third { ticks: old.cents as i64 * 4, size: old.size });
/// println!("{upgrades:?}");
/// ```
///
/// [`TopicBuilder::upgrade`](crate::TopicBuilder::upgrade) reads a topic by them, and
/// [`journal::convert`](crate::journal::convert) writes a journal anew. The functions run on whichever thread reads the
/// journal, under a queue's lock where a queue reads, so they should neither wait nor use the engine. A panic of one
/// is the panic of that reader.
#[derive(Clone, Default)]
pub struct Upgrades {
    steps: Vec<UpgradeStep>,
}

#[derive(Clone)]
struct UpgradeStep {
    /// The layouts before and after.
    from: String,
    to: String,
    convert: Arc<Convert>,
}

impl fmt::Debug for Upgrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.iter().map(|step| format!("{} -> {}", step.from, step.to));
        f.debug_tuple("Upgrades").field(&steps.collect::<Vec<_>>()).finish()
    }
}

impl Upgrades {
    /// No steps.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(
        mut self,
        from: String,
        to: String,
        convert: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Unreadable> + Send + Sync + 'static,
    ) -> Self {
        self.steps.push(UpgradeStep { from, to, convert: Arc::new(convert) });
        self
    }

    /// Adds the step from the layout of `Old` to that of `New`. `upgrade` is given an event that was read, and a
    /// default one to fill.
    pub fn step<Old, New>(self, upgrade: impl Fn(&Old, &mut New) + Send + Sync + 'static) -> Self
    where
        Old: Persist + Default,
        New: Persist + Default,
    {
        self.with(Old::layout(), New::layout(), move |bytes, out| {
            let (mut old, mut new) = (Old::default(), New::default());
            old.read(bytes)?;
            upgrade(&old, &mut new);
            new.write(out);
            Ok(())
        })
    }

    /// These steps and those of `other`.
    pub fn and(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        self
    }

    /// Adds the step from schema `from` of messages to the next one: see
    /// [`TopicBuilder::schema`](crate::TopicBuilder::schema). `upgrade` is given a message, and fills the new value,
    /// which is empty at first. Key, headers and time stay.
    pub fn schema(self, from: u32, upgrade: impl Fn(&Message, &mut Vec<u8>) + Send + Sync + 'static) -> Self {
        let from = from.max(1);
        self.with(schema_layout(from), schema_layout(from.saturating_add(1)), move |bytes, out| {
            let old = Message::decode(bytes).ok_or(Unreadable("the parts of a message do not make the whole"))?;
            let mut value = Vec::new();
            upgrade(&old, &mut value);
            old.write_with_value(&value, out)
        })
    }

    /// Adds the step between two layouts of plain data with named fields: each field takes the value of the older field
    /// of its name, and 0 if there is none; an older field without a newer one is left out.
    ///
    /// # Errors
    /// Why it is not possible: a layout names no fields, or a field has another type, or one that does not hold all values
    /// of the older one.
    pub fn by_name(self, from: &str, to: &str) -> Result<Self, String> {
        let named = |layout: &str| fields(layout).ok_or_else(|| format!("{layout:?} names no fields"));
        let (older, newer) = (named(from)?, named(to)?);
        let copied = |field: &LayoutField| {
            let found = older.fields().iter().find(|old| old.name() == field.name())?;
            let copy = FieldCopy::new(found, field);
            Some(copy.ok_or_else(|| format!("field {:?} has another type in {from:?} and {to:?}", field.name())))
        };
        let copies = newer.fields().iter().filter_map(copied).collect::<Result<Vec<_>, _>>()?;
        let (old_size, size) = (older.size(), newer.size());
        Ok(self.with(from.to_owned(), to.to_owned(), move |bytes, out| {
            if bytes.len() != old_size {
                return Err(Unreadable("it has another size"));
            }
            let begin = out.len();
            out.resize(begin + size, 0);
            copies.iter().for_each(|copy| copy.run(bytes, &mut out[begin..]));
            Ok(())
        }))
    }

    /// Why the steps are not clear; `None` if they are.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let leads = |index: usize, from: &str| self.steps[..index].iter().any(|step| step.from == from);
        self.steps.iter().enumerate().find_map(|(index, step)| match () {
            () if step.from == step.to => Some("a step that leads from a layout to itself"),
            () if leads(index, &step.from) => Some("another step from the same layout"),
            () => None,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps that lead from one layout to another one; `None` if they do not. Without any step if the two are the
    /// same.
    pub(crate) fn path(&self, from: &str, to: &str) -> Option<UpgradePath> {
        let (mut path, mut at) = (Vec::new(), from);
        while at != to {
            // A layout without names of fields is that of the only step of its size.
            let exact = self.steps.iter().find(|step| step.from == at);
            let step = exact.or_else(|| self.steps.iter().find(|step| is_same(at, &step.from)));
            let Some(step) = step.filter(|_| path.len() < self.steps.len()) else {
                // The recorded layout is the present one, but for the names.
                return is_same(at, to).then_some(UpgradePath(path));
            };
            path.push(Arc::clone(&step.convert));
            at = &step.to;
        }
        Some(UpgradePath(path))
    }
}

/// The name that panic messages give to the user's functions.
const UPGRADE: &str = "the topic's upgrade";

/// The steps from one layout to another one, in their order.
#[derive(Clone)]
pub(crate) struct UpgradePath(Vec<Arc<Convert>>);

impl UpgradePath {
    /// True if the two layouts are the same.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of the newer event.
    pub(crate) fn run<'b>(&self, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>, Unreadable> {
        let mut bytes = Cow::Borrowed(bytes);
        for convert in &self.0 {
            let mut next = Vec::with_capacity(bytes.len());
            blaming(UPGRADE, || convert(&bytes, &mut next))?;
            bytes = Cow::Owned(next);
        }
        Ok(bytes)
    }
}

fn is_float(number: NumberType) -> bool {
    matches!(number, NumberType::F32 | NumberType::F64)
}

fn is_signed(number: NumberType) -> bool {
    matches!(number, NumberType::I8 | NumberType::I16 | NumberType::I32 | NumberType::I64) || is_float(number)
}

/// True if `to` is a larger type that has every value of `from`.
fn widens(from: NumberType, to: NumberType) -> bool {
    is_float(from) == is_float(to) && from.size() < to.size() && (is_signed(to) || !is_signed(from))
}

/// How a field of an older layout becomes one of a newer layout.
struct FieldCopy {
    /// Places in the older and the newer event, in bytes.
    from: usize,
    to: usize,
    count: usize,
    numbers: (NumberType, NumberType),
}

impl FieldCopy {
    /// `None` if the newer field does not hold all values of the older one.
    fn new(from: &LayoutField, to: &LayoutField) -> Option<Self> {
        let numbers = (from.number_type(), to.number_type());
        let fits = from.len() == to.len() && (numbers.0 == numbers.1 || widens(numbers.0, numbers.1));
        let count = from.len().unwrap_or(1);
        fits.then_some(Self { from: from.offset(), to: to.offset(), count, numbers })
    }

    fn run(&self, bytes: &[u8], into: &mut [u8]) {
        let (old, new) = (self.numbers.0.size(), self.numbers.1.size());
        let older = bytes[self.from..self.from + old * self.count].chunks_exact(old);
        let newer = into[self.to..self.to + new * self.count].chunks_exact_mut(new);
        for (older, newer) in older.zip(newer) {
            match self.numbers {
                (NumberType::F32, NumberType::F64) => {
                    let number = older.try_into().map(f32::from_le_bytes).unwrap_or_default();
                    newer.copy_from_slice(&f64::from(number).to_le_bytes());
                }
                (of, _) => {
                    let is_negative = is_signed(of) && older.last().is_some_and(|top| top & 0x80 != 0);
                    newer.fill(if is_negative { 0xff } else { 0 });
                    newer[..old].copy_from_slice(older);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::layout::named;

    #[test]
    fn a_path_has_the_steps_in_their_order_and_ends_where_none_leads_on() {
        let bytes = |number: u64| number.to_le_bytes();
        let upgrades = Upgrades::new()
            .step(|old: &[u16; 2], new: &mut u64| *new = u64::from(old[0]) + 1)
            .step(|old: &u8, new: &mut [u16; 2]| new[0] = u16::from(*old) * 2);
        let (first, second, third) = (u8::layout(), <[u16; 2]>::layout(), u64::layout());
        let path = upgrades.path(&first, &third).unwrap();
        assert_eq!(*path.run(&[20]).unwrap(), bytes(41));
        assert_eq!(*upgrades.path(&second, &third).unwrap().run(&[5, 0, 0, 0]).unwrap(), bytes(6));
        assert_eq!(*upgrades.path(&third, &third).unwrap().run(&bytes(7)).unwrap(), bytes(7));
        assert!(upgrades.path(&third, &first).is_none() && upgrades.path("another", &third).is_none());
        assert_eq!(path.run(&[1, 2]), Err(Unreadable("it has another size")));
        assert_eq!(upgrades.contradiction(), None);
        let circle = upgrades.step(|_: &u64, _: &mut u8| ());
        assert!(circle.path(&first, "another").is_none(), "it ends");
        assert!(circle.clone().step(|_: &u64, _: &mut [u8; 3]| ()).contradiction().is_some());
        assert!(circle.step(|_: &u16, _: &mut i16| ()).contradiction().is_some(), "both are plain data of 2 bytes");
    }

    #[test]
    fn fields_of_one_name_are_copied_and_widened() {
        let from = named("a:i16@0 b:u8[2]@2 c:f32@4 gone:u32@8 size=12 align=4");
        let to = named("c:f64@0 a:i64@8 new:u32@16 b:i16[2]@20 size=24 align=8");
        let upgrades = Upgrades::new().by_name(&from, &to).unwrap();
        let old = [&(-2_i16).to_le_bytes()[..], &[200, 1], &0.5_f32.to_le_bytes(), &[9; 4]].concat();
        let new = upgrades.path(&from, &to).unwrap().run(&old).unwrap().into_owned();
        let expected = [
            &0.5_f64.to_le_bytes()[..],
            &(-2_i64).to_le_bytes(),
            &[0; 4],
            &200_i16.to_le_bytes(),
            &1_i16.to_le_bytes(),
        ];
        assert_eq!(new, expected.concat());
        for (from, to, told) in [
            ("plain data of 8 bytes", &*to, "names no fields"),
            (&*from, "plain data a:u64@0 size=8 align=8", "field \"a\""),
            (&*from, "plain data b:u8[3]@0 size=3 align=1", "field \"b\""),
            (&*from, "plain data c:u32@0 size=4 align=4", "field \"c\""),
        ] {
            let refused = Upgrades::new().by_name(from, to).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
    }
}

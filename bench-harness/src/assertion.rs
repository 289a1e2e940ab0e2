//! The conditions of `--assert`, such as `p99<2us,p99.9<20us,drops=0`.

use std::str::FromStr;

use crate::latency::{NAMES, Percentiles};
use crate::quantity::{self, nanos, per_second};

/// The figure that a condition is about.
#[derive(Clone, Debug, PartialEq)]
enum Subject {
    Percentile(String),
    Rate,
    Drops,
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    text: String,
    subject: Subject,
    relation: Relation,
    bound: f64,
}

/// Conditions; an assertion holds if all of them do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assertions(Vec<Condition>);

/// The figures of a run that conditions are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Latencies in nanoseconds.
    pub latency: Percentiles,
    /// Messages a second.
    pub rate: f64,
    /// Messages that were refused by a full ring.
    pub drops: u64,
}

/// An assertion that can't be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{0}` is not an assertion; write for example p99<2us, max<=1ms, rate>=1M/s, drops=0")]
pub struct BadAssertion(String);

impl FromStr for Assertions {
    type Err = BadAssertion;

    fn from_str(text: &str) -> Result<Self, BadAssertion> {
        text.split(',').map(condition).collect::<Result<_, _>>().map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, BadAssertion> {
    let text = text.trim();
    let wrong = || BadAssertion(text.to_owned());
    let at = text.find(['<', '>', '=']).ok_or_else(wrong)?;
    let (name, rest) = (text[..at].trim(), &text[at..]);
    let (relation, length) = [
        ("<=", Relation::AtMost),
        (">=", Relation::AtLeast),
        ("==", Relation::Equal),
        ("<", Relation::Less),
        (">", Relation::More),
        ("=", Relation::Equal),
    ]
    .into_iter()
    .find_map(|(sign, relation)| rest.starts_with(sign).then_some((relation, sign.len())))
    .ok_or_else(wrong)?;
    let bound = rest[length..].trim();
    let percentile = Percentiles::default().by_name(name).is_some();
    let (subject, bound) = match name {
        _ if percentile => {
            let limit = quantity::duration(bound).map_err(|_| wrong())?;
            (Subject::Percentile(name.to_owned()), limit.as_nanos() as f64)
        }
        "rate" => {
            let number = bound.strip_suffix("/s").unwrap_or(bound);
            (Subject::Rate, quantity::count(number).map_err(|_| wrong())? as f64)
        }
        "drops" => (Subject::Drops, quantity::count(bound).map_err(|_| wrong())? as f64),
        "count" => (Subject::Count, quantity::count(bound).map_err(|_| wrong())? as f64),
        _ => return Err(wrong()),
    };
    Ok(Condition { text: text.to_owned(), subject, relation, bound })
}

impl Assertions {
    /// The conditions that do not hold, each with the figure that was measured. A condition on a percentile that is n/a does
    /// not hold.
    pub fn broken(&self, figures: &Figures) -> Vec<String> {
        self.0.iter().filter_map(|condition| condition.broken(figures)).collect()
    }
}

impl Condition {
    fn broken(&self, figures: &Figures) -> Option<String> {
        let (found, shown) = match &self.subject {
            Subject::Percentile(name) => match figures.latency.by_name(name).flatten() {
                Some(value) => (value as f64, nanos(value)),
                None => {
                    return Some(format!(
                        "{}: {name} is n/a, {} samples are too few",
                        self.text, figures.latency.count
                    ));
                }
            },
            Subject::Rate => (figures.rate, per_second(figures.rate)),
            Subject::Drops => (figures.drops as f64, figures.drops.to_string()),
            Subject::Count => (figures.latency.count as f64, figures.latency.count.to_string()),
        };
        let holds = match self.relation {
            Relation::Less => found < self.bound,
            Relation::AtMost => found <= self.bound,
            Relation::Equal => found == self.bound,
            Relation::AtLeast => found >= self.bound,
            Relation::More => found > self.bound,
        };
        (!holds).then(|| format!("{}: found {shown}", self.text))
    }
}

/// True if `--fail-on` knows a figure of this name.
pub fn is_figure(name: &str) -> bool {
    NAMES.iter().any(|(known, _)| *known == name) || matches!(name, "max" | "rate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let latency = Percentiles {
            count: 20_000,
            p50: Some(400),
            p99: Some(1_900),
            max: Some(70_000),
            ..Percentiles::default()
        };
        Figures { latency, rate: 1e6, drops: 0 }
    }

    #[test]
    fn holds_or_says_what_was_found() {
        let fine: Assertions = "p99<2us, drops=0, rate>=1M/s, max<=70us".parse().unwrap();
        assert!(fine.broken(&figures()).is_empty());
        let broken: Assertions = "p50<400ns,max<50us".parse().unwrap();
        assert_eq!(broken.broken(&figures()).len(), 2);
        assert!(broken.broken(&figures())[1].contains("70.0 us"));
    }

    #[test]
    fn a_percentile_with_too_few_samples_does_not_hold() {
        let bold: Assertions = "p99.99<1s".parse().unwrap();
        assert!(bold.broken(&figures())[0].contains("n/a"));
    }

    #[test]
    fn refuses_nonsense() {
        for wrong in ["p98<1us", "p99", "p99<", "p99<fast", "", "drops<x"] {
            assert!(wrong.parse::<Assertions>().is_err(), "{wrong}");
        }
    }
}

//! A static share of the container: the i-th of n equal parts of the hash space.

use std::{fmt, str::FromStr};

use crate::cosmos::Span;

/// End of the hash space of version 2 partition keys: the first byte of an effective key is 0x00 to 0x3F.
const SPACE: u64 = 0x4000_0000_0000_0000;
/// Most parts; each has keys of its own by then in any container.
const MAX_PARTS: u32 = 1000;

/// Part `i` of `n`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    index: u32,
    of: u32,
}

impl Part {
    /// The keys of this part. The first one begins and the last one ends where the whole space does.
    // Division of the hash space in one place: to be replaced by the common type for `i/n` when there is one.
    fn bounds(self) -> (String, String) {
        let edge = |i: u32| format!("{:016X}", u128::from(SPACE) * u128::from(i) / u128::from(self.of));
        let min = if self.index == 1 { String::new() } else { edge(self.index - 1) };
        let max = if self.index == self.of { "FF".to_owned() } else { edge(self.index) };
        (min, max)
    }

    /// What of these spans belongs to this part.
    ///
    /// # Errors
    /// Never with the bounds made here; they are parsed as any others are.
    pub fn share_of(self, spans: &[Span]) -> Result<Vec<Span>, String> {
        let (min, max) = self.bounds();
        let own = Span::parse(&min, &max)?;
        Ok(spans.iter().filter_map(|span| span.intersection(&own)).collect())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        match numbers {
            Some((index, of)) if (1..=MAX_PARTS).contains(&of) && (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err(format!("{text:?} is not i/n with i from 1 to n and n up to {MAX_PARTS}, such as 1/4")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_cover_everything_once() {
        for of in [1, 2, 3, 7, 1000] {
            let mut end = String::new();
            for index in 1..=of {
                let (min, max) = Part { index, of }.bounds();
                assert_eq!(min, end, "{index}/{of}");
                assert!(min < max, "{index}/{of}");
                end = max;
            }
            assert_eq!(end, "FF");
        }
        assert_eq!(Part { index: 2, of: 4 }.bounds(), ("1000000000000000".into(), "2000000000000000".into()));
    }

    #[test]
    fn a_part_takes_its_share_of_each_span() {
        let spans = [Span::parse("", "20").unwrap(), Span::parse("20", "FF").unwrap()];
        let share: Vec<String> =
            "2/4".parse::<Part>().unwrap().share_of(&spans).unwrap().iter().map(Span::to_string).collect();
        assert_eq!(share, ["10-20"]);
        let all = "1/1".parse::<Part>().unwrap().share_of(&spans).unwrap();
        assert_eq!(all, spans);
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for bad in ["", "0/4", "5/4", "1/0", "1", "a/b", "1/1001", "-1/2"] {
            assert!(bad.parse::<Part>().is_err(), "{bad}");
        }
    }
}

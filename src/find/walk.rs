//! Locates where a condition became true among the versions of one document. Pure: times and answers go in, a place
//! comes out.

use std::ops::Range;

use crate::change::{time::PointInTime, version::Version};

/// The period in which writes are searched for, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first second.
    pub from: PointInTime,
    /// The last second.
    pub to: PointInTime,
}

impl Window {
    /// Whether a version was written in it.
    pub fn has(self, version: &Version) -> bool {
        (self.from.seconds()..=self.to.seconds()).contains(&version.ts)
    }

    /// The places of the versions that are tested: those in the window, and the one before, whose answer shows whether
    /// something became true. Versions are oldest first.
    pub fn asked(self, versions: &[Version]) -> Range<usize> {
        let first = versions.iter().position(|version| self.has(version));
        let last = versions.iter().rposition(|version| self.has(version));
        match first.zip(last) {
            Some((first, last)) => first.saturating_sub(1)..last + 1,
            None => 0..0,
        }
    }
}

/// Follows one document through its versions.
#[derive(Debug, Default)]
pub struct VersionWalk {
    was: bool,
    /// Whether the condition was true before the window began.
    pub already: bool,
}

impl VersionWalk {
    /// Takes the next version's answer; returns whether the condition became true in it, within the window.
    pub fn step(&mut self, in_window: bool, is: bool) -> bool {
        let was = std::mem::replace(&mut self.was, is);
        self.already |= is && !in_window;
        in_window && is && !was
    }
}

/// Halves a range of versions until only the one is left at which the condition became true. The last of them is known
/// to be true, and the one before the first is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bisection {
    /// The places among which the write lies.
    left: Range<usize>,
}

impl Bisection {
    /// Begins with the places that are not known to be false; the last is known to be true.
    pub fn new(places: Range<usize>) -> Self {
        Self { left: places }
    }

    /// The place to test next; `Err` with the write's place when it is found, or with `None` when there is none.
    pub fn next(&self) -> Result<usize, Option<usize>> {
        match self.left.len() {
            0 => Err(None),
            1 => Err(Some(self.left.start)),
            length => Ok(self.left.start + (length - 1) / 2),
        }
    }

    /// Takes the answer for the place that was tested.
    pub fn told(&mut self, place: usize, is: bool) {
        if is {
            self.left.end = place + 1;
        } else {
            self.left.start = place + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(times: &[i64]) -> Vec<Version> {
        let version = |ts: &i64| {
            let record = serde_json::json!({"id": format!("a~{ts}"), "_originalId": "a", "_change": {"v": 1, "op": "replace", "ts": ts}});
            Version::parse(&record.to_string()).unwrap()
        };
        times.iter().map(version).collect()
    }

    fn window(from: i64, to: i64) -> Window {
        Window { from: PointInTime::from_epoch(from), to: PointInTime::from_epoch(to) }
    }

    #[test]
    fn those_of_the_window_and_the_one_before_are_asked() {
        let all = versions(&[10, 20, 20, 30, 40]);
        for (from, to, asked) in [
            (20, 30, 0..4),
            (21, 29, 0..0),
            (21, 30, 2..4),
            (0, 100, 0..5),
            (10, 10, 0..1),
            (40, 90, 3..5),
            (41, 90, 0..0),
            (0, 9, 0..0),
        ] {
            assert_eq!(window(from, to).asked(&all), asked, "{from} to {to}");
        }
    }

    /// The first place at which it became true in the window, checked for every life of up to seven versions.
    #[test]
    fn the_first_rise_of_the_window_is_found_whatever_came_before() {
        for length in 0..=7_usize {
            let all = versions(&(0..length as i64).map(|n| n * 10).collect::<Vec<_>>());
            for answers in 0..1_u32 << length {
                let is = |place: usize| answers >> place & 1 == 1;
                for (first, last) in (0..=length).flat_map(|first| (first..=length).map(move |last| (first, last))) {
                    let window = window(first as i64 * 10, last as i64 * 10 - 1);
                    let expected = (first..last).find(|place| is(*place) && (*place == 0 || !is(place - 1)));
                    let mut walk = VersionWalk::default();
                    let found = window.asked(&all).find(|place| walk.step(window.has(&all[*place]), is(*place)));
                    assert_eq!(found, expected, "{length} {answers:b} {first}..{last}");
                }
            }
        }
    }

    #[test]
    fn halving_finds_the_one_place_with_few_questions() {
        for length in [1, 2, 3, 7, 100, 100_000_usize] {
            for rise in [0, 1, length / 3, length - 1] {
                let rise = rise.min(length - 1);
                let (mut halving, mut questions) = (Bisection::new(0..length), 0);
                let found = loop {
                    match halving.next() {
                        Err(found) => break found,
                        Ok(place) => {
                            questions += 1;
                            halving.told(place, place >= rise);
                        }
                    }
                };
                assert_eq!(found, Some(rise), "{length}");
                assert!(questions <= 17, "{length}: {questions}");
            }
        }
        assert_eq!(Bisection::new(4..4).next(), Err(None));
    }
}

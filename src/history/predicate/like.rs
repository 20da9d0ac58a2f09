//! `LIKE`: `%` matches any text, `_` one character, `[a-f]` one of these and `[^a-f]` one of the others.

/// One step of a pattern.
enum Step {
    Any,
    /// One of these characters, or one of all others.
    One {
        of: Vec<(char, char)>,
        is_other: bool,
    },
}

impl Step {
    fn has(&self, character: char) -> bool {
        match self {
            Self::Any => true,
            Self::One { of, is_other } => of.iter().any(|(from, to)| (*from..=*to).contains(&character)) != *is_other,
        }
    }
}

/// Whether a text matches a pattern.
pub(super) fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let steps = steps(pattern);
    let (mut t, mut s) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match steps.get(s) {
            Some(Step::Any) => {
                back = Some((s, t));
                s += 1;
            }
            Some(step) if step.has(text[t]) => {
                s += 1;
                t += 1;
            }
            _ => match back {
                Some((any, from)) => {
                    back = Some((any, from + 1));
                    (s, t) = (any + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    steps[s..].iter().all(|step| matches!(step, Step::Any))
}

fn steps(pattern: &str) -> Vec<Step> {
    let mut found = Vec::new();
    let mut rest: Vec<char> = pattern.chars().rev().collect();
    while let Some(character) = rest.pop() {
        // A set has at least one character, which may be the closing bracket.
        let end = rest.iter().rev().skip(1).position(|c| *c == ']').map(|end| end + 1);
        found.push(match (character, end) {
            ('%', _) => Step::Any,
            ('_', _) => Step::One { of: Vec::new(), is_other: true },
            ('[', Some(end)) => {
                let mut set: Vec<char> = rest.split_off(rest.len() - end);
                set.reverse();
                rest.pop();
                let is_other = set[0] == '^';
                Step::One { of: ranges(&set[usize::from(is_other)..]), is_other }
            }
            (other, _) => Step::One { of: vec![(other, other)], is_other: false },
        });
    }
    found
}

fn ranges(mut set: &[char]) -> Vec<(char, char)> {
    let mut found = Vec::new();
    loop {
        match set {
            [from, '-', to, rest @ ..] => {
                found.push((*from, *to));
                set = rest;
            }
            [one, rest @ ..] => {
                found.push((*one, *one));
                set = rest;
            }
            [] => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_the_service_takes_it_for() {
        for (text, pattern, matches) in [
            ("Davidson", "D%s_n", true),
            ("Davidson", "d%", false),
            ("Davidson", "D[a-c]v%", true),
            ("Davidson", "D[^a-c]v%", false),
            ("Davidson", "%[xn]", true),
            ("a]b", "a[]]b", true),
            ("a-b", "a[x-]b", true),
            ("a[b", "a[b", true),
            ("[]", "[]", true),
            ("", "%", true),
            ("", "_", false),
            ("abab", "%ab", true),
        ] {
            assert_eq!(like(text, pattern), matches, "{text} {pattern}");
        }
    }
}

//! An error in an expression, with a caret below the place.

/// A malformed expression, with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\n  {line}\n  {}^", " ".repeat(*column))]
pub struct BadFilter {
    /// The problem.
    pub problem: String,
    /// The line of the expression that it is in.
    line: String,
    /// The number of characters of that line before it.
    column: usize,
}

impl BadFilter {
    /// At this many characters from the beginning.
    pub(super) fn at(source: &str, problem: String, place: usize) -> Self {
        let mut left = place;
        for line in source.lines() {
            let length = line.chars().count();
            if left <= length {
                return Self { problem, line: line.to_owned(), column: left };
            }
            left -= length + 1;
        }
        Self { problem, line: source.lines().last().unwrap_or_default().to_owned(), column: 0 }
    }

    /// At a line and a column, both counted from 1 by the library. The library lists what it expected there in names of
    /// its own, which are left out.
    pub(super) fn at_line(source: &str, problem: &str, line: isize, column: isize) -> Self {
        if source.trim().is_empty() {
            return Self { problem: "the expression is empty".into(), line: "''".into(), column: 0 };
        }
        let index = usize::try_from(line - 1).unwrap_or(0);
        let line = source.lines().nth(index).or_else(|| source.lines().last()).unwrap_or_default().to_owned();
        let column = usize::try_from(column - 1).unwrap_or(0).min(line.chars().count());
        let is_at_end = column == line.chars().count() && index + 1 >= source.lines().count();
        let problem = match is_at_end {
            true => "the expression ends too early",
            false => problem.split(" expecting ").next().unwrap_or_default(),
        };
        Self { problem: problem.to_owned(), line, column }
    }
}

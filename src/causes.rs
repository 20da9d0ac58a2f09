//! Shows errors to people: what happened, and why. Every error of this crate displays only itself; its cause is its
//! source.

use std::error::Error;

/// An error with all its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write {0}")]
    struct Write(&'static str, #[source] std::io::Error);

    #[test]
    fn what_happened_comes_before_why() {
        assert_eq!(chain(&Write("a.json", std::io::Error::other("disk full"))), "cannot write a.json: disk full");
    }
}

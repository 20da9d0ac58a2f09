//! The fields that a predicate is about.

use super::tokens::{Token, TokenKind, tokens};

/// The members of documents that a predicate names, each as it is written (`c.address.zip`), without repetitions.
pub fn fields(predicate: &str) -> Vec<&str> {
    let all = tokens(predicate);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = all.get(at) {
        let is_member = at.checked_sub(1).and_then(|before| all.get(before)).is_some_and(|before| before.text == ".");
        let mut end = at + 1;
        if token.kind == TokenKind::Name && token.text == "c" && !is_member {
            while let Some(used) = step(&all[end..]) {
                end += used;
            }
        }
        if end > at + 1 {
            let last = &all[end - 1];
            let field = &predicate[token.start..last.start + last.text.len()];
            if !found.contains(&field) {
                found.push(field);
            }
        }
        at = end;
    }
    found
}

/// How many tokens the next step of a path has: `.name`, `['name']` or `[0]`.
fn step(rest: &[Token<'_>]) -> Option<usize> {
    match rest {
        [dot, name, ..] if dot.text == "." && name.kind == TokenKind::Name => Some(2),
        [open, inner, close, ..]
            if open.text == "[" && matches!(inner.kind, TokenKind::Text | TokenKind::Number) && close.text == "]" =>
        {
            Some(3)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_as_they_are_written() {
        for (predicate, expected) in [
            ("c.city = 'c.no' AND c.city != @c.x", vec!["c.city"]),
            ("c['a b'].c[0].d > 1 -- c.comment", vec!["c['a b'].c[0].d"]),
            ("EXISTS(SELECT VALUE t FROM t IN c.tags WHERE t.c = 1)", vec!["c.tags"]),
            ("IS_DEFINED(c) OR true", vec![]),
        ] {
            assert_eq!(fields(predicate), expected, "{predicate}");
        }
    }
}

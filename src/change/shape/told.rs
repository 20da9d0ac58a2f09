//! Filters the paths that an update names as changed: the names below a field are content as well.

use serde_json::value::RawValue;

use super::{Redactor, Tree};
use crate::change::{
    edit::quote,
    pointer::{index, names},
    raw::RawDocument,
};

impl Redactor {
    /// JSON Pointers, truncated at what is redacted, and without what is not kept.
    pub fn told(&self, changed: Vec<String>) -> Vec<String> {
        let mut told: Vec<String> = Vec::with_capacity(changed.len());
        for path in changed {
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            let names: Vec<String> = names(&path).collect();
            if self.fields.as_ref().is_some_and(|tree| !is_kept(tree, &names)) {
                continue;
            }
            let seen = parts.get(..seen(&self.redacted, &names)).unwrap_or_default();
            let path: String = seen.iter().flat_map(|part| ["/", part]).collect();
            if !told.contains(&path) {
                told.push(path);
            }
        }
        told
    }

    /// The metadata of an item that say what an update changed.
    pub(super) fn metadata(&self, text: &str) -> Result<String, serde_json::Error> {
        if !text.starts_with('{') {
            return Ok(text.to_owned());
        }
        let metadata = RawDocument::parse(text)?;
        let Some(changed) = metadata.get("changed").map(RawValue::get) else { return Ok(text.to_owned()) };
        let told: Vec<String> = self.told(serde_json::from_str(changed)?).iter().map(|path| quote(path)).collect();
        let members = metadata.members().iter().map(|member| match member.is("changed") {
            true => format!("{}:[{}]", member.key.get(), told.join(",")),
            false => format!("{}:{}", member.key.get(), member.value.get()),
        });
        Ok(format!("{{{}}}", members.collect::<Vec<_>>().join(",")))
    }
}

/// Whether something at or below a path is kept.
fn is_kept(tree: &Tree, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    tree.action.is_some()
        || tree.inner.get(first).is_some_and(|inner| is_kept(inner, rest))
        || (index(first).is_some() && is_kept(tree, rest))
}

/// How many names of a path may be shown; the redacted field's own is the last.
fn seen(tree: &Tree, path: &[String]) -> usize {
    let Some((first, rest)) = path.split_first() else { return 0 };
    let named = match tree.inner.get(first) {
        Some(inner) if inner.action.is_some() => 0,
        Some(inner) => seen(inner, rest),
        None => rest.len(),
    };
    // An array on the way stands for all of its elements.
    let counted = index(first).map_or(rest.len(), |_| seen(tree, rest));
    1 + named.min(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::{KeyPaths, parse_path};

    fn told(fields: &[&str], redact: &[&str], changed: &[&str]) -> Vec<String> {
        let fields: Vec<_> = fields.iter().map(|path| parse_path(path).unwrap()).collect();
        let redact: Vec<_> = redact.iter().map(|path| path.parse().unwrap()).collect();
        let redactor = Redactor::new(&fields, &redact, &KeyPaths::id(), None).unwrap().unwrap();
        redactor.told(changed.iter().map(|path| (*path).to_owned()).collect())
    }

    #[test]
    fn a_path_ends_at_what_is_redacted() {
        let redact = ["/ssn", "/people/mail", "/a~b"];
        let changed =
            ["/ssn/1-2", "/ssn", "/people/0/mail/x@y", "/people/mail/z", "/people/1/name", "/people", "/a~0b/c"];
        assert_eq!(
            told(&[], &redact, &changed),
            ["/ssn", "/people/0/mail", "/people/mail", "/people/1/name", "/people", "/a~0b"]
        );
    }

    #[test]
    fn what_is_not_kept_is_not_named() {
        let changed = ["/n", "/n/x", "/secret/x@y", "/a/b/c", "/a/d", "/a", "/list/3/x", "/list/3/y"];
        assert_eq!(told(&["/n", "/a/b", "/list/x"], &[], &changed), ["/n", "/n/x", "/a/b/c", "/a", "/list/3/x"]);
    }
}

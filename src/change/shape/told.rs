//! Filters the paths that an update names as changed: the names below a field are content as well.

use serde_json::value::RawValue;

use super::{Redactor, Tree};
use crate::change::{
    edit::quote,
    extended::escaped,
    pointer::{index, names},
    raw::RawDocument,
};

impl Redactor {
    /// JSON Pointers, truncated at what is redacted or kept, and without what is not kept. Where a name with a dot
    /// makes them ambiguous, whatever they may mean is hidden.
    pub fn told(&self, changed: Vec<String>) -> Vec<String> {
        let mut told: Vec<String> = Vec::with_capacity(changed.len());
        for path in changed {
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            let names: Vec<String> = names(&path).collect();
            // A MongoDB document's own member may have another name in its text.
            let in_text = match names.split_first() {
                Some((first, rest)) => [std::slice::from_ref(&escaped(first).into_owned()), rest].concat(),
                None => Vec::new(),
            };
            let Some(kept) = self.fields.as_ref().map_or(Some(parts.len()), |tree| kept(tree, &in_text)) else {
                continue;
            };
            let trees = [&self.redacted, &self.undotted];
            let seen =
                trees.into_iter().flat_map(|tree| [seen(tree, &names), seen(tree, &in_text)]).fold(kept, usize::min);
            let path: String = parts.iter().take(seen).flat_map(|part| ["/", part]).collect();
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

/// How many names of a path may be shown; `None` when nothing at or below it is kept. The source separates names with
/// dots, which a name may have as well: what follows a kept field may be the rest of another field's name.
fn kept(tree: &Tree, path: &[String]) -> Option<usize> {
    let Some((first, rest)) = path.split_first().filter(|_| tree.action.is_none()) else { return Some(0) };
    let named = tree.inner.get(first).and_then(|inner| kept(inner, rest));
    let counted = index(first).and_then(|_| kept(tree, rest));
    named.into_iter().chain(counted).min().map(|below| below + 1)
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
    fn a_name_with_a_dot_hides_whatever_it_may_mean() {
        // The field "a.b", the field "c.d" in "m", and a member "id" of the document's own.
        let redact = ["/a.b", "/m/c.d", "/~id"];
        let changed = ["/a/b/x@y", "/a/c", "/m/c/d/x@y", "/m/c", "/m/0/c/d/z", "/id/x@y", "/a/b"];
        assert_eq!(told(&[], &redact, &changed), ["/a/b", "/a/c", "/m/c/d", "/m/c", "/m/0/c/d", "/id"]);
    }

    #[test]
    fn what_is_not_kept_is_not_named() {
        // "/n/x" may be a field "n.x", and "/id" a member of the document's own.
        let changed = ["/id", "/id/x", "/n", "/n/x", "/secret/x@y", "/a/b/c", "/a/d", "/a", "/list/3/x", "/list/3/y"];
        assert_eq!(told(&["/n", "/a/b", "/list/x"], &[], &changed), ["/n", "/a/b", "/a", "/list/3/x"]);
    }
}

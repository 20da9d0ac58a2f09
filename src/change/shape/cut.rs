//! Cuts what is not to be kept out of a document's text.

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, Mac as _};
use serde_json::value::RawValue;
use sha2::Sha256;

use super::{Redaction, Redactor};
use crate::change::{
    extended::{BSON, is_closed, is_value},
    key::render_path,
    pointer,
    raw::RawDocument,
    record::hex,
};

/// Paths as a tree; an array on the way stands for all of its elements.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) inner: BTreeMap<String, Tree>,
    pub(super) action: Option<Redaction>,
}

impl Tree {
    pub(super) fn add(&mut self, path: &[String], action: Redaction) {
        let mut at = self;
        for segment in path {
            at = at.inner.entry(segment.clone()).or_default();
        }
        at.action = Some(action);
    }
}

/// What is kept of a document.
pub(super) struct Part {
    pub(super) text: String,
    /// The content of `_change.partial`, when more is left out than what was named.
    pub(super) note: Option<String>,
}

/// The paths of values that no path can reach into, and that were left out as a whole.
type Closed = BTreeSet<Vec<String>>;

impl Redactor {
    /// What is kept of a document, and what is to be said of it.
    pub(super) fn part(&self, document: &str) -> Result<Part, serde_json::Error> {
        let whole = RawDocument::parse(document)?;
        // A MongoDB document that is stored as bytes, without members here: what they were is not known.
        if whole.get(BSON).is_some_and(|bytes| is_closed(&format!("{{\"{BSON}\":{bytes}}}"))) {
            let open = whole.members().iter().filter(|member| !member.is(BSON));
            let open = open.map(|member| format!("{}:{}", member.key.get(), member.value.get()));
            let text = self.cut(&format!("{{{}}}", open.collect::<Vec<_>>().join(",")), &mut Closed::new())?;
            let has_id = RawDocument::parse(&text)?.get("_id").is_some();
            let kept = if has_id { vec!["/_id".to_owned()] } else { Vec::new() };
            return Ok(Part { note: Some(self.names.with_only(kept).note()), text });
        }
        let mut closed = Closed::new();
        let text = self.cut(document, &mut closed)?;
        let closed: Vec<String> = closed.iter().map(|path| render_path(path)).collect();
        Ok(Part { note: (!closed.is_empty()).then(|| self.names.without(closed).note()), text })
    }

    fn cut(&self, document: &str, closed: &mut Closed) -> Result<String, serde_json::Error> {
        let kept = match &self.fields {
            Some(tree) => keep(document, tree, &mut Vec::new(), closed)?.unwrap_or_else(|| "{}".to_owned()),
            None => document.to_owned(),
        };
        match self.redacted.inner.is_empty() {
            true => Ok(kept),
            false => self.redact(&kept, &self.redacted, &mut Vec::new(), closed),
        }
    }

    /// `at` is the path of the text, without the numbers of elements.
    fn redact(
        &self,
        text: &str,
        tree: &Tree,
        at: &mut Vec<String>,
        closed: &mut Closed,
    ) -> Result<String, serde_json::Error> {
        if tree.inner.is_empty() {
            return Ok(text.to_owned());
        }
        match text.as_bytes().first() {
            Some(b'[') => {
                // A number may index an array, as in the other paths that people write.
                let counted = tree.inner.iter().filter_map(|(name, inner)| Some((pointer::index(name)?, inner)));
                let counted: BTreeMap<usize, &Tree> = counted.collect();
                let mut parts = Vec::new();
                for (place, element) in elements(text)?.into_iter().enumerate() {
                    if is_closed(element.get()) {
                        closed.insert(at.clone());
                        continue;
                    }
                    parts.push(match counted.get(&place).map(|inner| (inner, inner.action)) {
                        Some((_, Some(Redaction::Drop))) => continue,
                        Some((_, Some(Redaction::Hash))) => self.hash(element.get()),
                        Some((inner, None)) => {
                            let text = self.redact(element.get(), tree, at, closed)?;
                            self.redact(&text, inner, at, closed)?
                        }
                        None => self.redact(element.get(), tree, at, closed)?,
                    });
                }
                Ok(format!("[{}]", parts.join(",")))
            }
            Some(b'{') => {
                let document = RawDocument::parse(text)?;
                let mut members = Vec::with_capacity(document.members().len());
                for member in document.members() {
                    let (name, value) = (member.name(), member.value.get());
                    let inner = tree.inner.get(name.as_ref());
                    let value = match inner.map(|inner| (inner, inner.action)) {
                        None => value.to_owned(),
                        Some((_, Some(Redaction::Drop))) => continue,
                        Some((_, Some(Redaction::Hash))) => self.hash(value),
                        Some((inner, None)) => {
                            at.push(name.into_owned());
                            // No part of it can be left out.
                            let left = if is_closed(value) {
                                closed.insert(at.clone());
                                None
                            } else {
                                Some(self.redact(value, inner, at, closed)?)
                            };
                            at.pop();
                            let Some(left) = left else { continue };
                            left
                        }
                    };
                    members.push(format!("{}:{value}", member.key.get()));
                }
                Ok(format!("{{{}}}", members.join(",")))
            }
            _ => Ok(text.to_owned()),
        }
    }

    /// HMAC-SHA256 of the value's JSON text, truncated to half: enough to tell values apart.
    fn hash(&self, value: &str) -> String {
        let key = self.key.as_ref().map_or(&[][..], |key| key.expose().as_bytes());
        // HMAC accepts a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return "null".to_owned() };
        mac.update(value.as_bytes());
        format!("\"hmac:{}\"", hex(&mac.finalize().into_bytes()[..16]))
    }
}

/// The part of a value that lies on these paths; `None` when nothing does. `at` is its own path.
fn keep(
    text: &str,
    tree: &Tree,
    at: &mut Vec<String>,
    closed: &mut Closed,
) -> Result<Option<String>, serde_json::Error> {
    if tree.action.is_some() {
        return Ok(Some(text.to_owned()));
    }
    match text.as_bytes().first() {
        Some(b'[') => {
            let mut kept = Vec::new();
            for element in elements(text)? {
                kept.extend(keep(element.get(), tree, at, closed)?);
            }
            Ok(Some(format!("[{}]", kept.join(","))))
        }
        // A single value has no fields, or none that a path can reach.
        Some(b'{') if is_value(text) => {
            if is_closed(text) {
                closed.insert(at.clone());
            }
            Ok(None)
        }
        Some(b'{') => {
            let document = RawDocument::parse(text)?;
            let mut members = Vec::new();
            for member in document.members() {
                let name = member.name();
                let Some(inner) = tree.inner.get(name.as_ref()) else { continue };
                at.push(name.into_owned());
                let value = keep(member.value.get(), inner, at, closed)?;
                at.pop();
                members.extend(value.map(|value| format!("{}:{value}", member.key.get())));
            }
            Ok(Some(format!("{{{}}}", members.join(","))))
        }
        _ => Ok(None),
    }
}

fn elements(text: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

//! Documents as they were before their first write, for a log that is asked to keep them.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use serde_json::Value;

use super::{Put, WriteLog};
use crate::local::keys::DocumentKey;

/// A document as it was before its first write.
#[derive(Clone, Debug)]
pub(in crate::local) struct Original {
    pub id: String,
    /// The partition key in the format of the request header.
    pub partition_key: Arc<str>,
    /// Its text; `None` when the document did not exist.
    pub text: Option<Bytes>,
}

/// The documents that were written, in the order of their first writes.
#[derive(Debug, Default)]
pub(super) struct Originals {
    known: BTreeSet<DocumentKey>,
    list: Vec<Original>,
}

impl WriteLog {
    /// From now on, keeps each document as it was before its first write.
    pub fn remember_originals(&mut self) {
        self.originals.get_or_insert_default();
    }

    /// Returns the documents that were written, except for the first `known` of them.
    pub fn originals_after(&self, known: usize) -> &[Original] {
        self.originals.as_ref().and_then(|originals| originals.list.get(known..)).unwrap_or_default()
    }

    /// Whether a document was written, so that its original must not be imported again.
    pub fn is_written(&self, key: &DocumentKey) -> bool {
        self.originals.as_ref().is_some_and(|originals| originals.known.contains(key))
    }

    /// Records a document as its own original, without a write.
    pub fn import(&mut self, put: Put) {
        let originals = self.originals.take();
        self.put(put);
        self.originals = originals;
    }

    /// Keeps a document as it is before a write; `own` is the partition key if the document does not exist.
    pub(super) fn note_original(&mut self, key: &DocumentKey, own: Option<&[Value]>) {
        let Some(originals) = &mut self.originals else { return };
        let document = self.documents.get(key);
        let partition_key = match (document, own) {
            (Some(document), _) => Arc::clone(&document.partition_key),
            (None, Some(own)) => Arc::from(Value::from(own.to_vec()).to_string()),
            (None, None) => return,
        };
        if originals.known.insert(key.clone()) {
            let text = document.map(|document| document.text.clone());
            originals.list.push(Original { id: key.id.clone(), partition_key, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::local::keys::Epk;

    fn put(id: &str, text: &str) -> Put {
        let (key, text) = (DocumentKey { epk: Epk::parse("10").unwrap(), id: id.to_owned() }, text.to_owned().into());
        Put { key, text, etag: "e".into(), ts: 1, ttl: None, partition_key: vec![json!("p")], renamed_from: None }
    }

    #[test]
    fn the_state_before_each_first_write_is_kept() {
        let mut log = WriteLog::new(0, None);
        log.begin();
        log.import(put("before", "b0"));
        log.put(put("before", "b1"));
        assert_eq!(log.originals_after(0).len(), 0, "it was not asked to keep them");
        log.remember_originals();
        for (id, text) in [("a", "a0"), ("b", "b0"), ("c", "c0")] {
            log.begin();
            log.import(put(id, text));
        }
        log.delete(&put("never", "").key, 1, false);
        assert_eq!(log.originals_after(0).len(), 0);
        log.put(put("a", "a1"));
        log.put(put("a", "a2"));
        log.delete(&put("b", "").key, 1, false);
        // A changed id: one document less, and one more.
        log.put(Put { renamed_from: Some(put("c", "").key), ..put("d", "d1") });
        let seen: Vec<(String, Option<Bytes>)> =
            log.originals_after(0).iter().map(|original| (original.id.clone(), original.text.clone())).collect();
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let expected = [("a", text("a0")), ("b", text("b0")), ("c", text("c0")), ("d", None)];
        assert_eq!(seen, expected.map(|(id, text)| (id.to_owned(), text)));
        assert_eq!((log.originals_after(3).len(), log.originals_after(9).len()), (1, 0));
        assert!(log.is_written(&put("b", "").key) && !log.is_written(&put("before", "").key));
        assert!(log.originals_after(0).iter().all(|original| &*original.partition_key == r#"["p"]"#));
    }
}

//! The text form of a MongoDB document, and back.

use cosmos_rewind::{
    bson_text::{bytes_of, id_value, text_of},
    change::{diff, edit, extended, raw::RawDocument},
};

use super::{Sower, is_json};

/// Any bytes as a document, any text as the text form of one, and a document made of the bytes.
pub fn bson_text(data: &[u8]) {
    if text_of(data).is_ok() {
        comes_back(data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = id_value(text);
        if let Ok(bytes) = bytes_of(text) {
            comes_back(&bytes);
        }
    }
    let mut sower = Sower { bytes: data };
    let id = sower.element("_id");
    let others: Vec<u8> = (0..sower.next() % 20).flat_map(|_| sower.member(0)).collect();
    comes_back(&framed(&[id, others].concat()));
}

fn comes_back(bytes: &[u8]) {
    let text = text_of(bytes).expect("it is a document");
    assert_eq!(bytes_of(&text).as_deref(), Ok(bytes), "{text}");
    assert!(is_json(&text), "{text}");
    let document = RawDocument::parse(&text).expect("it is an object");
    assert!(diff::same(&text, &text) && !extended::is_value(&text));
    let id = document.get_str("id").expect("it is known by its id");
    // An invalid string value cannot be the id.
    assert!(id_value(&id).is_ok() || id.contains("$bson"), "{id}");
    // A further field can be added, unless the document is stored as raw bytes.
    let edited = edit::set(&text, &["restored_at".into()], "1700000000").expect("it is an object");
    assert_eq!(bytes_of(&edited).is_ok(), document.get(extended::BSON).is_none(), "{edited}");
}

fn framed(inner: &[u8]) -> Vec<u8> {
    let length = u32::try_from(inner.len() + 5).expect("it is short");
    [&length.to_le_bytes(), inner, &[0]].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len() + 1).expect("it is short");
    [&length.to_le_bytes(), text, &[0]].concat()
}

impl Sower<'_> {
    fn member(&mut self, depth: usize) -> Vec<u8> {
        const NAMES: [&str; 14] =
            ["a", "b", "c", "", "0", "1", "id", "ttl", "~", "~id", "_ts", "$oid", "$bson", "$numberInt"];
        let name = NAMES[usize::from(self.next()) % NAMES.len()];
        self.named(name, depth)
    }

    fn element(&mut self, name: &str) -> Vec<u8> {
        self.named(name, 4)
    }

    fn named(&mut self, name: &str, depth: usize) -> Vec<u8> {
        const KINDS: [u8; 21] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 0x7F, 0xFF];
        let kind = match KINDS[usize::from(self.next()) % KINDS.len()] {
            3 | 4 | 15 if depth > 4 => 10,
            kind => kind,
        };
        let mut bytes = |count: usize| (0..count).map(|_| self.next()).collect::<Vec<u8>>();
        let value = match kind {
            1 | 9 | 17 | 18 => bytes(8),
            2 | 13 | 14 => string(&bytes(3)),
            5 => {
                let [subtype, length] = [bytes(1)[0] % 4, bytes(1)[0] % 9];
                [&u32::from(length).to_le_bytes()[..], &[subtype], &bytes(length.into())].concat()
            }
            7 => bytes(12),
            8 => bytes(1),
            11 => [bytes(2), bytes(1)]
                .map(|text| [text.into_iter().filter(|b| *b != 0).collect(), vec![0]].concat())
                .concat(),
            12 => [string(&bytes(2)), bytes(12)].concat(),
            16 => bytes(4),
            19 => bytes(16),
            3 | 4 => self.inside(kind, depth),
            15 => {
                let inner = [string(b"f"), self.inside(3, depth)].concat();
                let length = u32::try_from(inner.len() + 4).expect("it is short");
                [&length.to_le_bytes()[..], &inner].concat()
            }
            _ => Vec::new(),
        };
        [&[kind], name.as_bytes(), &[0], &value].concat()
    }

    fn inside(&mut self, kind: u8, depth: usize) -> Vec<u8> {
        let count = self.next() % 6;
        let is_odd = self.next().is_multiple_of(8);
        let member = |place: u8| match kind {
            4 if !is_odd => self.named(&place.to_string(), depth + 1),
            _ => self.member(depth + 1),
        };
        framed(&(0..count).flat_map(member).collect::<Vec<u8>>())
    }
}

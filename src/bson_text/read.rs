//! From text to bytes, in one pass over the text without a tree of values.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    NoBson,
    elements::{ARRAY, BOOLEAN, DOCUMENT, DOUBLE, INT32, INT64, NULL, STRING, id_of, set_length},
    id,
    wrapped::{self, Text},
};
use crate::change::{
    extended::{BSON, WRAPPERS, escaped, is_escaped},
    pointer,
    record::SYSTEM,
};

/// The bytes of a document.
pub(super) fn document(text: &str) -> Result<Vec<u8>, NoBson> {
    let mut state = ReadState::default();
    // The parser limits nesting, so the stack cannot overflow.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(Top(&mut state));
    let read = read.and_then(|beside| deserializer.end().map(|()| beside));
    let ExtraMembers { known_as, whole } = read.map_err(|error| state.error(&error))?;
    let bytes = match whole {
        Some(whole) => agreed(whole, &state.out)?,
        None => state.out,
    };
    let Some(own) = id_of(&bytes) else { return Err(NoBson::at("", "has no _id")) };
    match known_as {
        Some(known_as) if known_as != id::text_of(own.kind, own.value) => {
            Err(NoBson::at("/id", "does not belong to the _id"))
        }
        _ => Ok(bytes),
    }
}

/// The bytes of a document that is written as a whole, when its `_id` agrees with the one beside it.
fn agreed(whole: Vec<u8>, beside: &[u8]) -> Result<Vec<u8>, NoBson> {
    let (own, beside) = (id_of(&whole), id_of(beside));
    match (own, beside) {
        (Some(own), Some(beside)) if (own.kind, own.value) == (beside.kind, beside.value) => Ok(whole),
        (_, None) => Err(NoBson::at("", "has no _id")),
        _ => Err(NoBson::at("/_id", "is not the one in $bson")),
    }
}

/// The type and the bytes of a value.
pub(super) fn value(text: &str) -> Result<(u8, Vec<u8>), NoBson> {
    let mut state = ReadState::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Value(&mut state).deserialize(&mut deserializer);
    let read = read.and_then(|kind| deserializer.end().map(|()| kind));
    match read {
        Ok(kind) => Ok((kind, state.out)),
        Err(error) => Err(state.error(&error)),
    }
}

/// The bytes of a string.
pub(super) fn string(text: &str) -> Vec<u8> {
    let mut state = ReadState::default();
    state.string(text);
    state.out
}

impl NoBson {
    pub(super) fn at(place: &str, problem: &str) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// The output, and the path to the value that is being read.
#[derive(Default)]
pub(super) struct ReadState {
    pub(super) out: Vec<u8>,
    /// Where in `out` the names begin that lead to the value that is being read.
    way: Vec<usize>,
    /// Whether the first of them is written unchanged because it means something to this program.
    is_meant: bool,
    /// The problem. The parser's own messages quote values.
    problem: Option<String>,
}

impl ReadState {
    /// An error that names the problem.
    pub(super) fn wrong<E: Error>(&mut self, problem: impl Into<String>) -> E {
        self.problem = Some(problem.into());
        E::custom("")
    }

    pub(super) fn string(&mut self, text: &str) {
        // A longer text exceeds any document; the reader of the bytes refuses it.
        let length = i32::try_from(text.len() + 1).unwrap_or(-1);
        self.out.extend_from_slice(&length.to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
    }

    /// Writes a name or another text with a terminating zero.
    pub(super) fn ended<E: Error>(&mut self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            return Err(self.wrong("has a zero in a name or an expression"));
        }
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
        Ok(())
    }

    /// The name that begins at a place.
    fn name(&self, at: usize) -> &str {
        let rest = self.out.get(at..).unwrap_or_default();
        let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    fn error(&self, error: &serde_json::Error) -> NoBson {
        let mut place = String::new();
        for (level, at) in self.way.iter().enumerate() {
            let name = self.name(*at);
            let name = if level == 0 && !self.is_meant { escaped(name) } else { name.into() };
            place.push('/');
            place.push_str(&pointer::escaped(&name));
        }
        let problem = match &self.problem {
            Some(problem) => problem.clone(),
            None if error.is_data() => "is not written as a value is".into(),
            None => error.to_string(),
        };
        NoBson { place, problem }
    }

    /// Reads the value whose type and name begin at a place, and fills in its type.
    fn member<E>(&mut self, at: usize, read: impl FnOnce(&mut Self) -> Result<u8, E>) -> Result<(), E> {
        self.way.push(at + 1);
        let kind = read(self)?;
        self.way.pop();
        if let Some(place) = self.out.get_mut(at) {
            *place = kind;
        }
        Ok(())
    }

    /// Ends the document that begins at a place.
    fn end(&mut self, from: usize) {
        self.out.push(0);
        set_length(&mut self.out, from);
    }
}

/// Writes a name, with room for the type before it and a zero after it.
struct Name<'s>(&'s mut ReadState);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        self.0.out.push(0);
        self.0.ended(name)
    }
}

/// The document itself; returns what the text says beside its members.
struct Top<'s>(&'s mut ReadState);

/// The members of a text that are not the document's own.
#[derive(Default)]
struct ExtraMembers {
    /// The text that identifies the document.
    known_as: Option<String>,
    /// The bytes of the document, when they are written as a whole.
    whole: Option<Vec<u8>>,
}

impl Top<'_> {
    /// Reads a member that is not the document's own.
    fn meant<'de, A: MapAccess<'de>>(
        &mut self,
        at: usize,
        map: &mut A,
        beside: &mut ExtraMembers,
    ) -> Result<(), A::Error> {
        let state = &mut *self.0;
        state.way.push(at + 1);
        match state.name(at + 1) {
            "id" => beside.known_as = Some(map.next_value::<Text<'de>>()?.0.into_owned()),
            BSON => match wrapped::bson(state, map)? {
                (DOCUMENT, whole) => beside.whole = Some(whole),
                _ => return Err(state.wrong("is not a document")),
            },
            name if SYSTEM.contains(&name) => drop(map.next_value::<IgnoredAny>()?),
            name => {
                let problem = format!("is a name with a meaning here: the document's own is written ~{name}");
                return Err(state.wrong(problem));
            }
        }
        state.way.pop();
        state.out.truncate(at);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ExtraMembers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<ExtraMembers, A::Error> {
        let (mut beside, mut others) = (ExtraMembers::default(), false);
        self.0.out.extend_from_slice(&[0; 4]);
        let mut at = self.0.out.len();
        while map.next_key_seed(Name(self.0))?.is_some() {
            let name = self.0.name(at + 1);
            let is_escape = name.starts_with('~');
            others |= name != "_id" && (is_escape || !is_escaped(name));
            self.0.is_meant = !is_escape && is_escaped(name);
            if self.0.is_meant {
                self.meant(at, &mut map, &mut beside)?;
                continue;
            }
            if is_escape {
                self.0.out.remove(at + 1);
            }
            self.0.member(at, |state| map.next_value_seed(Value(state)))?;
            at = self.0.out.len();
        }
        if beside.whole.is_some() && others {
            return Err(self.0.wrong("is written whole in $bson, and has other members beside it"));
        }
        self.0.end(0);
        Ok(beside)
    }
}

/// A value: its bytes are written, and its type is handed back.
pub(super) struct Value<'s>(pub(super) &'s mut ReadState);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = u8;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u8, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = u8;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<u8, E> {
        Ok(NULL)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<u8, E> {
        self.0.out.push(u8::from(value));
        Ok(BOOLEAN)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u8, E> {
        match i32::try_from(value) {
            Ok(value) => {
                self.0.out.extend_from_slice(&value.to_le_bytes());
                Ok(INT32)
            }
            Err(_) => {
                self.0.out.extend_from_slice(&value.to_le_bytes());
                Ok(INT64)
            }
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u8, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u8, E> {
        self.0.out.extend_from_slice(&value.to_le_bytes());
        Ok(DOUBLE)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u8, E> {
        self.0.string(text);
        Ok(STRING)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<u8, A::Error> {
        let state = self.0;
        let start = state.out.len();
        state.out.extend_from_slice(&[0; 4]);
        for index in 0_usize.. {
            let at = state.out.len();
            Name(state).visit_str(&index.to_string())?;
            let mut is_end = false;
            state.member(at, |state| {
                let kind = elements.next_element_seed(Value(state))?;
                is_end = kind.is_none();
                Ok::<_, A::Error>(kind.unwrap_or_default())
            })?;
            if is_end {
                state.out.truncate(at);
                break;
            }
        }
        state.end(start);
        Ok(ARRAY)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u8, A::Error> {
        let state = self.0;
        let start = state.out.len();
        state.out.extend_from_slice(&[0; 4]);
        let mut at = state.out.len();
        while map.next_key_seed(Name(state))?.is_some() {
            if at == start + 4
                && let Some(name) = WRAPPERS.into_iter().find(|name| *name == state.name(at + 1))
            {
                state.out.truncate(start);
                return wrapped::value(name, state, &mut map);
            }
            state.member(at, |state| map.next_value_seed(Value(state)))?;
            at = state.out.len();
        }
        state.end(start);
        Ok(DOCUMENT)
    }
}

//! A body as it arrives. The host's encoding is undone chunk by chunk, in one pass over its layers of escapes, and the
//! encoded text is never held as a whole. Decoding the layers one by one would take five times as long, and hold a body
//! of 64 MB in memory twice.

use serde::Deserialize;

use super::{
    invocation::{BadInvocation, Payload},
    text::BufferPool,
};
use crate::change::raw::RawDocument;

/// How long the beginning of a body may be before its payload begins: the host writes it without white space.
const LONGEST_HEAD: usize = 4096;

/// A partly received body.
#[derive(Debug)]
pub struct Incoming<'a> {
    binding: &'a str,
    spare: &'a BufferPool,
    /// The number of expected bytes, as far as they are worth reserving.
    expected: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// The payload has not begun.
    Head(Vec<u8>),
    /// Inside the doubly encoded payload.
    Payload { head: Vec<u8>, text: Vec<u8>, carry: Carry },
    /// After it.
    Tail { head: Vec<u8>, text: Vec<u8>, tail: Vec<u8> },
    /// In any other format: kept as it came, to be parsed generically.
    Other(Vec<u8>),
}

/// The beginning of an escape whose end is in the next chunk.
#[derive(Debug, Default)]
struct Carry {
    bytes: [u8; LONGEST_ESCAPE],
    used: usize,
}

const LONGEST_ESCAPE: usize = 4;

impl Carry {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// The meaning of a backslash or a quote.
enum Escape {
    /// A character of the document's text, and how many bytes encode it.
    Character(u8, usize),
    /// The end of both layers.
    End,
    /// Cut off by the end of the chunk.
    Cut,
    /// Something that the host does not write.
    Unknown,
}

/// The end of the payload.
const END: &[u8] = br#"\"""#;

impl Escape {
    fn read(bytes: &[u8]) -> Self {
        match bytes {
            // The document's own quote, and its own backslash.
            [b'\\', b'\\', b'\\', character @ (b'"' | b'\\'), ..] => Self::Character(*character, 4),
            // White space between tokens, as the serializer may have written it.
            [b'\\', b'\\', b'n', ..] => Self::Character(b'\n', 3),
            [b'\\', b'\\', b'r', ..] => Self::Character(b'\r', 3),
            [b'\\', b'\\', b't', ..] => Self::Character(b'\t', 3),
            [b'\\', b'"', b'"', ..] => Self::End,
            [b'\\'] | [b'\\', b'\\' | b'"'] | [b'\\', b'\\', b'\\'] => Self::Cut,
            _ => Self::Unknown,
        }
    }

    /// The inverse, for a text that has to be parsed generically after all.
    fn write(character: u8, out: &mut Vec<u8>) {
        match character {
            b'"' => out.extend_from_slice(br#"\\\""#),
            b'\\' => out.extend_from_slice(br"\\\\"),
            b'\n' => out.extend_from_slice(br"\\n"),
            b'\r' => out.extend_from_slice(br"\\r"),
            b'\t' => out.extend_from_slice(br"\\t"),
            plain => out.push(plain),
        }
    }
}

/// How a run of the payload ended.
enum Run {
    /// With the chunk; the rest of it is in the carry.
    Chunk,
    /// With the payload, before this byte of the chunk.
    Payload(usize),
    /// With something that the host does not write, at this byte of the chunk.
    Unknown(usize),
}

impl<'a> Incoming<'a> {
    /// Nothing received yet; `expected` bytes are reserved, and further memory is taken from `spare`.
    pub fn new(binding: &'a str, expected: usize, spare: &'a BufferPool) -> Self {
        Self { binding, spare, expected, form: Form::Head(Vec::new()) }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        self.form = match std::mem::replace(&mut self.form, Form::Other(Vec::new())) {
            Form::Head(mut head) => {
                head.extend_from_slice(chunk);
                match payload_begins(&head, self.binding) {
                    Begins::At(at) => {
                        let rest = head.split_off(at);
                        let mut text = Vec::with_capacity(self.expected.max(rest.len() + 1));
                        text.push(b'[');
                        self.decoded(head, text, Carry::default(), &rest)
                    }
                    Begins::Later if head.len() <= LONGEST_HEAD => Form::Head(head),
                    Begins::Later | Begins::Never => Form::Other(head),
                }
            }
            Form::Payload { head, text, carry } => self.decoded(head, text, carry, chunk),
            Form::Tail { head, text, mut tail } => {
                tail.extend_from_slice(chunk);
                Form::Tail { head, text, tail }
            }
            Form::Other(mut all) => {
                all.extend_from_slice(chunk);
                Form::Other(all)
            }
        };
    }

    /// Decodes the next chunk.
    fn decoded(&self, head: Vec<u8>, mut text: Vec<u8>, mut carry: Carry, chunk: &[u8]) -> Form {
        self.spare.make_room(&mut text, chunk.len());
        match run(&mut text, &mut carry, chunk) {
            Run::Chunk => Form::Payload { head, text, carry },
            Run::Payload(end) => Form::Tail { head, text, tail: chunk[end..].to_vec() },
            Run::Unknown(at) => Form::Other(encoded(head, &text, &[carry.bytes(), &chunk[at..]])),
        }
    }

    /// The payload, once the whole body was received.
    ///
    /// # Errors
    /// When the body is not what a host sends.
    pub fn finish(self) -> Result<Payload, BadInvocation> {
        let body = match self.form {
            Form::Head(all) | Form::Other(all) => all,
            Form::Payload { head, text, carry } => encoded(head, &text, &[carry.bytes()]),
            Form::Tail { head, text, tail } if ends_well(&tail, self.binding) => match String::from_utf8(text) {
                Ok(mut text) => {
                    let used = text.trim_end().len();
                    text.truncate(used);
                    return Ok(Payload(text));
                }
                Err(e) => encoded(head, e.as_bytes(), &[END, &tail]),
            },
            Form::Tail { head, text, tail } => encoded(head, &text, &[END, &tail]),
        };
        Payload::of_any_form(&body, self.binding)
    }
}

fn run(text: &mut Vec<u8>, carry: &mut Carry, chunk: &[u8]) -> Run {
    let mut at = 0;
    if carry.used > 0 {
        // The escape that the last chunk cut off, with as many bytes of this one as it may need.
        let before = carry.used;
        let more = chunk.len().min(LONGEST_ESCAPE - before);
        let mut escape = carry.bytes;
        escape[before..before + more].copy_from_slice(&chunk[..more]);
        match Escape::read(&escape[..before + more]) {
            Escape::Character(character, length) => {
                text.push(character);
                at = length - before;
            }
            Escape::End => return Run::Payload(END.len() - before),
            Escape::Cut => {
                *carry = Carry { bytes: escape, used: before + more };
                return Run::Chunk;
            }
            Escape::Unknown => return Run::Unknown(0),
        }
        *carry = Carry::default();
    }
    loop {
        let rest = &chunk[at..];
        let length = memchr::memchr2(b'\\', b'"', rest).unwrap_or(rest.len());
        let plain = &rest[..length];
        // Without an early exit, so that the compiler can examine many bytes at once.
        if plain.iter().fold(false, |control, b| control | (*b < 0x20)) {
            return Run::Unknown(at);
        }
        text.extend_from_slice(plain);
        at += length;
        let found = &chunk[at..];
        if found.is_empty() {
            return Run::Chunk;
        }
        match Escape::read(found) {
            Escape::Character(character, length) => {
                text.push(character);
                at += length;
            }
            Escape::End => return Run::Payload(at + END.len()),
            Escape::Cut => {
                carry.bytes[..found.len()].copy_from_slice(found);
                carry.used = found.len();
                return Run::Chunk;
            }
            Escape::Unknown => return Run::Unknown(at),
        }
    }
}

/// Restores the body's bytes: its head, the payload as the host encodes it, and what followed.
fn encoded(mut all: Vec<u8>, text: &[u8], rest: &[&[u8]]) -> Vec<u8> {
    // The head includes the bracket that the text begins with.
    text[1..].iter().for_each(|character| Escape::write(*character, &mut all));
    rest.iter().for_each(|part| all.extend_from_slice(part));
    all
}

enum Begins {
    /// After its bracket, which is before this byte.
    At(usize),
    Later,
    Never,
}

/// Where the payload begins in a body whose first member is the one that holds it.
fn payload_begins(body: &[u8], binding: &str) -> Begins {
    let name = format!("\"{binding}\"");
    let mut at = 0;
    for token in ["{", "\"Data\"", ":", "{", &name, ":", "\"\\\"["].map(str::as_bytes) {
        at += body[at..].iter().take_while(|b| b" \t\r\n".contains(b)).count();
        let there = &body[at..];
        if there.len() < token.len() && token.starts_with(there) {
            return Begins::Later;
        }
        if !there.starts_with(token) {
            return Begins::Never;
        }
        at += token.len();
    }
    Begins::At(at)
}

/// Whether what follows the payload is the rest of an invocation. It is small, and with an empty payload before it a
/// parser can tell.
fn ends_well(tail: &[u8], binding: &str) -> bool {
    #[derive(Deserialize)]
    struct Rest<'a> {
        #[serde(borrow, rename = "Data")]
        data: RawDocument<'a>,
    }
    let Ok(tail) = std::str::from_utf8(tail) else { return false };
    let rest = format!("{{\"Data\":{{\"{binding}\":\"\"{tail}");
    // A second member of that name would count instead.
    let only = |data: &RawDocument<'_>| data.members().iter().filter(|member| member.is(binding)).count() == 1;
    serde_json::from_str::<Rest<'_>>(&rest).is_ok_and(|rest| only(&rest.data))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::host::invocation::encode;

    /// Decodes a body in one pass, in pieces of this many bytes; `None` when that gives up.
    fn in_one_pass(body: &[u8], piece: usize) -> Option<String> {
        let spare = BufferPool::default();
        let mut incoming = Incoming::new("documents", 0, &spare);
        body.chunks(piece.max(1)).for_each(|chunk| incoming.push(chunk));
        match &incoming.form {
            Form::Tail { tail, .. } if ends_well(tail, "documents") => incoming.finish().ok().map(|payload| payload.0),
            _ => None,
        }
    }

    /// Pieces of any size give the same result, which is also that of parsing each layer separately.
    fn agreed(body: &[u8]) -> Option<String> {
        let general = Payload::of_any_form(body, "documents");
        let whole = in_one_pass(body, body.len());
        if let Some(text) = &whole {
            assert_eq!(general.as_ref().map(|payload| &payload.0), Ok(text), "{}", String::from_utf8_lossy(body));
        }
        for piece in [1, 2, 3, 5, 64] {
            let spare = BufferPool::default();
            let mut incoming = Incoming::new("documents", 0, &spare);
            body.chunks(piece).for_each(|chunk| incoming.push(chunk));
            assert_eq!(incoming.finish(), general, "in {piece}s: {}", String::from_utf8_lossy(body));
            assert_eq!(in_one_pass(body, piece), whole);
        }
        whole
    }

    fn host(array: &str) -> String {
        encode("documents", array, &json!({"sys": {}}))
    }

    #[test]
    fn the_host_s_own_form_is_read_in_one_pass() {
        for array in [
            "[]",
            r#"[{"id":"a","text":"quote \" backslash \\ \u00e9 \n end","n":1.10}]"#,
            "[ {\n\t\"id\": \"ä\" } ]\r\n",
        ] {
            assert_eq!(agreed(host(array).as_bytes()).as_deref(), Some(array.trim()));
        }
        let spaced = host("[{\"id\":\"a\"}]").replace("{\"Data\":{", " { \"Data\" :\n{ ");
        assert!(agreed(spaced.as_bytes()).is_some());
    }

    #[test]
    fn a_large_payload_goes_where_another_one_was() {
        let array = json!((0..3000).map(|n| json!({"id": n.to_string(), "t": "x".repeat(1000)})).collect::<Vec<_>>());
        let array = array.to_string();
        let mut body = host(&array).into_bytes();
        let spare = BufferPool::default();
        let read = |body: &[u8]| {
            let mut incoming = Incoming::new("documents", 0, &spare);
            body.chunks(10_000).for_each(|chunk| incoming.push(chunk));
            incoming.finish()
        };
        let first = read(&body).unwrap();
        assert_eq!(first.0, array);
        spare.keep(vec![b'?'; 5_000_000]);
        assert_eq!(read(&body).as_ref(), Ok(&first));
        spare.keep(first.into_bytes());
        // Bytes that are not UTF-8 are reported as for the whole body.
        body[2_500_000] = 0xff;
        assert_eq!(read(&body), Err(BadInvocation::NotUtf8(2_500_000)));
    }

    #[test]
    fn a_payload_that_does_not_begin_is_not_waited_for() {
        let late = format!("{}{}", " ".repeat(2 * LONGEST_HEAD), host("[]"));
        let spare = BufferPool::default();
        let mut incoming = Incoming::new("documents", 0, &spare);
        late.as_bytes().chunks(64).for_each(|chunk| incoming.push(chunk));
        assert!(matches!(&incoming.form, Form::Other(all) if *all == late.as_bytes()));
        assert_eq!(incoming.finish(), Payload::of_any_form(late.as_bytes(), "documents"));
    }

    #[test]
    fn every_other_form_is_read_in_the_general_way() {
        let taken = host("[{\"id\":\"a\"}]");
        for other in [
            taken.replace("\"Data\"", "\"data\""),
            taken.replace("\"documents\"", "\"documentsX\""),
            taken.replace("\"documents\"", "\" documents\""),
            taken.replace("\"documents\"", "\"document\\u0073\""),
            taken.replace("{\"Data\":", "{\"Metadata\":{},\"Data\":"),
            taken.replace("\"Metadata\"", "\"Data\""),
            taken.replace("},\"Metadata\"", ",\"documents\":\"[]\"},\"Metadata\""),
            taken.replace("},\"Metadata\"", ",\"documents\":\"\"},\"Metadata\""),
            format!("{taken}x"),
            taken[..taken.len() - 1].to_owned(),
            taken.replace("\"}]", "\u{1}\"}]"),
            taken.replace("\\\"[", "\\\"x["),
            // Text outside of ASCII may be escaped.
            taken.replace("\\\"a\\", "\\\"\\\\u00e9\\"),
        ] {
            assert_ne!(other, taken);
            assert_eq!(agreed(other.as_bytes()), None, "{other}");
        }
        let mut torn = taken.into_bytes();
        let id = torn.windows(2).position(|two| two == b"\"a").unwrap() + 1;
        torn[id] = 0xff;
        assert_eq!(agreed(&torn), None);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_and_damaged_it_is_read_as_the_general_way_reads_it(
            text in ".{0,40}", cut in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let array = json!([{"id": text, "pk": "p"}]).to_string();
            let body = encode("documents", &array, &json!({"sys": {"MethodName": text}}));
            prop_assert_eq!(agreed(body.as_bytes()), Some(array));
            let mut damaged = body.into_bytes();
            let at = cut.index(damaged.len());
            damaged[at] = byte;
            agreed(&damaged);
            damaged.truncate(at);
            agreed(&damaged);
        }
    }
}

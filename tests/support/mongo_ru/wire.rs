//! The wire protocol: OP_MSG with both section kinds, and OP_QUERY, which some drivers greet with.

use bson::{Document, RawArrayBuf, RawDocumentBuf};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;

/// Flag: a checksum follows the sections.
const CHECKSUM: u32 = 1;
/// Flag: the client expects no reply.
const MORE_TO_COME: u32 = 2;
/// The message size limit from the handshake.
const LARGEST: usize = 48_000_000;

/// A command as received.
pub struct Message {
    id: i32,
    legacy: bool,
    pub wants_reply: bool,
    /// The command with its document sequences as arrays, undecoded.
    pub body: RawDocumentBuf,
}

impl Message {
    /// The name of the command.
    pub fn name(&self) -> String {
        let first = self.body.iter().next().expect("a command has a name").expect("valid BSON");
        first.0.as_str().to_owned()
    }

    pub fn command(&self) -> Document {
        Document::try_from(&self.body).expect("valid BSON")
    }

    /// The documents of a sequence, byte for byte.
    pub fn documents(&self, name: &str) -> Vec<RawDocumentBuf> {
        let Ok(array) = self.body.get_array(name) else { return Vec::new() };
        array.into_iter().map(|item| item.unwrap().as_document().unwrap().to_owned()).collect()
    }

    /// Encodes the reply to this message.
    pub fn reply(&self, document: &RawDocumentBuf) -> Vec<u8> {
        let mut content = Vec::new();
        let code = if self.legacy {
            // Response flags, cursor id, starting position, document count.
            content.extend(8_i32.to_le_bytes());
            content.extend([0; 12]);
            content.extend(1_i32.to_le_bytes());
            OP_REPLY
        } else {
            content.extend([0; 5]);
            OP_MSG
        };
        content.extend(document.as_bytes());
        let length = i32::try_from(content.len() + 16).unwrap();
        let mut bytes = Vec::with_capacity(content.len() + 16);
        for part in [length, self.id.wrapping_add(1), self.id, code] {
            bytes.extend(part.to_le_bytes());
        }
        bytes.extend(content);
        bytes
    }
}

/// Reads the next message. Returns `None` when the client has disconnected or sends an unsupported message.
pub async fn read(stream: &mut TcpStream) -> Option<Message> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).await.ok()?;
    let number = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let length = usize::try_from(number(0)).ok().filter(|length| (16..=LARGEST).contains(length))?;
    let mut content = vec![0; length - 16];
    stream.read_exact(&mut content).await.ok()?;
    match number(12) {
        OP_MSG => message(number(4), &content),
        OP_QUERY => query(number(4), &content),
        _ => None,
    }
}

fn message(id: i32, content: &[u8]) -> Option<Message> {
    let flags = u32::from_le_bytes(content.get(..4)?.try_into().unwrap());
    let end = content.len() - if flags & CHECKSUM == 0 { 0 } else { 4 };
    let mut rest = content.get(4..end)?;
    let mut body = None;
    let mut sequences = Vec::new();
    while let Some((kind, section)) = rest.split_first() {
        let size = size_of(section)?;
        let (section, behind) = section.split_at_checked(size)?;
        match kind {
            0 => body = Some(RawDocumentBuf::from_bytes(section.to_vec()).ok()?),
            1 => sequences.push(sequence(section.get(4..)?)?),
            _ => return None,
        }
        rest = behind;
    }
    let mut body = body?;
    for (name, documents) in sequences {
        body.append(bson::raw::CString::try_from(name).ok()?, documents);
    }
    Some(Message { id, legacy: false, wants_reply: flags & MORE_TO_COME == 0, body })
}

/// Parses a document sequence: a name and its documents.
fn sequence(section: &[u8]) -> Option<(String, RawArrayBuf)> {
    let (name, mut rest) = text(section)?;
    let mut documents = RawArrayBuf::new();
    while !rest.is_empty() {
        let (one, behind) = rest.split_at_checked(size_of(rest)?)?;
        documents.push(RawDocumentBuf::from_bytes(one.to_vec()).ok()?);
        rest = behind;
    }
    Some((name, documents))
}

/// Parses OP_QUERY: flags, the name of a collection, two numbers, and the command.
fn query(id: i32, content: &[u8]) -> Option<Message> {
    let (_, rest) = text(content.get(4..)?)?;
    let rest = rest.get(8..)?;
    let body = RawDocumentBuf::from_bytes(rest.get(..size_of(rest)?)?.to_vec()).ok()?;
    Some(Message { id, legacy: true, wants_reply: true, body })
}

fn size_of(bytes: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(bytes.get(..4)?.try_into().unwrap())).ok()
}

/// Splits a null-terminated string from the remaining bytes.
fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((String::from_utf8(bytes[..end].to_vec()).ok()?, &bytes[end + 1..]))
}

/// Sends a reply, or only its first half when the connection is to break.
pub async fn send(stream: &mut TcpStream, bytes: &[u8], cut: bool) -> std::io::Result<()> {
    if cut {
        stream.write_all(&bytes[..bytes.len() / 2]).await?;
        stream.flush().await?;
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    stream.write_all(bytes).await
}

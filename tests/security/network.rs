//! Who can reach the program, and how it handles requests that are meant to confuse it.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use serde_json::json;

use crate::{
    follow::ALL,
    support::{FollowerProcess, Local, TestApp, body_of, feed_document},
};

/// The addresses on which a process listens, from its sockets and the kernel's tables.
fn listening(id: u32) -> BTreeSet<String> {
    let links = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().filter_map(Result::ok);
    let sockets: BTreeSet<String> = links
        .filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.replace(']', "")))
        .collect();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        for line in std::fs::read_to_string(format!("/proc/{id}/net/{table}")).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            const LISTEN: &str = "0A";
            if fields[3] == LISTEN && sockets.contains(fields[9]) {
                found.insert(fields[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    found
}

/// 127.0.0.1 in the kernel's notation.
const LOOPBACK: &str = "0100007F";

#[tokio::test]
async fn handler_and_local_account_listen_on_loopback_only_and_a_follower_nowhere() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(listening(handler.id()), BTreeSet::from([LOOPBACK.to_owned()]));
    let local = Local::start(&[]).await;
    assert_eq!(listening(local.id()), BTreeSet::from([LOOPBACK.to_owned()]));
    let mut follower = FollowerProcess::start(&app, &ALL);
    follower.wait_for_log("start of every range saved").await;
    assert_eq!(listening(follower.id()), BTreeSet::new());
    drop(follower);
    let mut follower = FollowerProcess::start(&app, &[&ALL[..], &["--name", "m", "--metrics", "127.0.0.1:0"]].concat());
    follower.wait_for_log("metrics are served").await;
    assert_eq!(listening(follower.id()), BTreeSet::from([LOOPBACK.to_owned()]));
}

/// The response to these bytes within five seconds, and whether the connection was closed.
fn answer_to(port: u16, bytes: &[u8], end: bool) -> (String, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // A server may refuse while the client is still sending, so a failed write is fine.
    let _ = stream.write_all(bytes);
    if end {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                return (String::from_utf8_lossy(&answer).into_owned(), true);
            }
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), false),
        }
    }
}

async fn send(port: u16, bytes: String, end: bool) -> (String, bool) {
    tokio::task::spawn_blocking(move || answer_to(port, bytes.as_bytes(), end)).await.unwrap()
}

fn statuses(answer: &str) -> Vec<u16> {
    let parts = answer.split("HTTP/1.1 ").skip(1);
    parts.filter_map(|part| part.get(..3)?.parse().ok()).collect()
}

fn smuggled(n: usize) -> String {
    body_of(&json!([feed_document(&format!("smuggled-{n}"), "p", 1)]).to_string())
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_stores_nothing_and_others_are_served() {
    const POST: &str = "POST /CaptureChanges HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n";
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let port: u16 = handler.url("").trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let inner = |n: usize| {
        let body = smuggled(n);
        format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let chunked = |n: usize| {
        let body = smuggled(n);
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
    };
    let body = smuggled(0);
    let length = body.len();
    let cases: Vec<(&str, String)> = vec![
        // By the length, the rest is one body; by the encoding, the body ends at once and another request follows.
        ("length, then chunked", {
            let rest = format!("0\r\n\r\n{}", inner(1));
            format!("{POST}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{rest}", rest.len())
        }),
        ("chunked, then length", {
            let rest = format!("0\r\n\r\n{}", inner(2));
            format!("{POST}Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n{rest}", rest.len())
        }),
        ("two lengths", format!("{POST}Content-Length: {length}\r\nContent-Length: 2\r\n\r\n{body}")),
        ("two lengths in one", format!("{POST}Content-Length: {length}, 2\r\n\r\n{body}")),
        ("a length with a sign", format!("{POST}Content-Length: +{length}\r\n\r\n{body}")),
        ("a negative length", format!("{POST}Content-Length: -1\r\n\r\n{body}")),
        ("a length in hexadecimal", format!("{POST}Content-Length: 0x10\r\n\r\n{body}")),
        ("a length over 64 bits", format!("{POST}Content-Length: 18446744073709551616\r\n\r\n{body}")),
        ("a length with a blank in its name", format!("{POST}Content-Length : {length}\r\n\r\n{body}")),
        ("another encoding", format!("{POST}Transfer-Encoding: xchunked\r\n\r\n{}", chunked(4))),
        ("chunked not last", format!("{POST}Transfer-Encoding: chunked, identity\r\n\r\n{}", chunked(5))),
        (
            "chunked in HTTP/1.0",
            format!("{}Transfer-Encoding: chunked\r\n\r\n{}", POST.replace("1.1", "1.0"), chunked(6)),
        ),
        ("a chunk over 64 bits", format!("{POST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n{body}")),
        ("a chunk with a sign", format!("{POST}Transfer-Encoding: chunked\r\n\r\n-1\r\n{body}\r\n0\r\n\r\n")),
        ("a chunk longer than it says", format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\n{body}\r\n0\r\n\r\n")),
        (
            "a chunk's endless extension",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n1;{}\r\n", "x".repeat(1 << 20)),
        ),
        ("a header folded over two lines", format!("{POST}X: a\r\n Content-Length: {length}\r\n\r\n{}", inner(7))),
        ("a NUL in a header", format!("{POST}X: a\0b\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("a header without a colon", format!("{POST}Nonsense\r\nContent-Length: {length}\r\n\r\n{body}")),
        (
            "a header of a megabyte",
            format!("{POST}X: {}\r\nContent-Length: {length}\r\n\r\n{body}", "x".repeat(1 << 20)),
        ),
        ("ten thousand headers", format!("{POST}{}Content-Length: {length}\r\n\r\n{body}", "X: a\r\n".repeat(10_000))),
        ("a target of a megabyte", format!("POST /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(1 << 20))),
        ("no HTTP at all", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned()),
        ("a tunnel", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        ("a body cut off", format!("{POST}Content-Length: {}\r\n\r\n{body}", length + 1)),
        ("chunks cut off", format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", length)),
        ("headers cut off", format!("{POST}Content-Len")),
    ];
    let mut complaints = Vec::new();
    for (name, bytes) in cases {
        let end = name.ends_with("cut off");
        let (answer, closed) = send(port, bytes, end).await;
        let statuses = statuses(&answer);
        let refused = statuses.iter().all(|status| (400..500).contains(status)) && (closed || !statuses.is_empty());
        if !refused || statuses.len() > 1 {
            complaints.push(format!("{name}: closed {closed}, {answer:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(app.history().await.is_empty(), "{:#?}", app.history().await);
    assert!(app.dead_letters().is_empty());

    // Only the chunks count, and nothing after them, as RFC 9112 (6.1) requires.
    let both = format!("{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{}{}", chunked(3), inner(4));
    let (answer, closed) = send(port, both, false).await;
    assert_eq!((statuses(&answer), closed), (vec![200], true), "{answer}");
    assert_eq!(app.history().await.len(), 1);

    // Two consecutive requests are two requests, not an attack.
    let two = format!("{}{}", inner(8), inner(9));
    let (answer, _) = send(port, two, false).await;
    assert_eq!(statuses(&answer), [200, 200], "{answer}");
    assert_eq!(app.history().await.len(), 3);
}

#[tokio::test]
async fn callers_that_never_finish_delay_neither_others_nor_a_stop() {
    let app = TestApp::start().await;
    let mut handler = app.handler(&[("REWIND_DRAIN_SECONDS", "2")]).await;
    let address = handler.url("").replace("http://", "").trim_end_matches('/').to_owned();
    let slow: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let begun: &[u8] = match n % 3 {
                0 => b"",
                1 => b"POST /CaptureChanges HTTP/1.1\r\nHost: h\r\nX: ",
                _ => b"POST /CaptureChanges HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{",
            };
            stream.write_all(begun).unwrap();
            stream
        })
        .collect();
    assert_eq!(handler.deliver(&[feed_document("a", "p", 1)]).await.0, 200);
    assert_eq!(app.history().await.len(), 1);
    handler.terminate();
    assert_eq!(handler.exit_code(Duration::from_secs(20)).await, Some(200));
    drop(slow);
}

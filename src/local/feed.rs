//! The change feed over HTTP, answered from the write log alone.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::container::{LocalContainer, RangeError};
use super::keys::EpkRange;
use super::log::{Document, Dropped, PageLimit, Version, WriteLog};
use super::message::{Ask, GatewayAnswer, header};

/// The size at which the service ends a page that has no limit.
pub(super) const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The feed mode of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadMode {
    Latest,
    AllVersions,
}

/// Where a read starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Beginning,
    Now,
    /// At this second since the epoch, inclusive.
    Time(u64),
    /// After this LSN.
    After(u64),
}

impl Start {
    /// Returns the LSN after which this start reads.
    pub fn lsn(self, log: &WriteLog) -> u64 {
        match self {
            Self::Beginning => 0,
            Self::Now => log.lsn(),
            Self::Time(ts) => log.lsn_before(ts),
            Self::After(lsn) => lsn,
        }
    }
}

/// Feed items as JSON text.
#[derive(Debug, Default)]
struct FeedPage {
    pub items: Vec<Bytes>,
    pub up_to: u64,
}

/// Answers `GET .../docs` with an `A-IM` header.
pub(super) async fn read(container: &LocalContainer, ask: &Ask) -> GatewayAnswer {
    let mode = match ask.headers.get("a-im").map(str::to_ascii_lowercase).as_deref() {
        Some("incremental feed") => ReadMode::Latest,
        Some("full-fidelity feed") => ReadMode::AllVersions,
        other => return GatewayAnswer::bad_request(format!("unknown change feed mode in A-IM: {other:?}")),
    };
    let enveloped =
        mode == ReadMode::AllVersions || ask.headers.get("x-ms-cosmos-changefeed-wire-format-version").is_some();
    let start = match start_of(ask) {
        Ok(start) => start,
        Err(answer) => return *answer,
    };
    if mode == ReadMode::AllVersions && matches!(start, Start::Beginning | Start::Time(_)) {
        return GatewayAnswer::bad_request(
            "The all versions and deletes mode starts from now (If-None-Match: *) or from a continuation only",
        );
    }
    let range = match container.range_of(ask) {
        Ok(range) => range,
        Err(error) => return error.into_answer(),
    };
    let limit = PageLimit { items: ask.max_items().unwrap_or(usize::MAX), bytes: PAGE_BYTES };
    let log = container.read().await;
    if let Start::After(lsn) = start
        && lsn > log.lsn()
    {
        return GatewayAnswer::bad_request("The continuation belongs to another container: it is ahead of this one");
    }
    match page(&log, container, mode, enveloped, start, &range, limit) {
        Ok(page) => answer(container, &page, log.lsn()),
        Err(Dropped(lsn)) => GatewayAnswer::bad_request(format!(
            "The continuation is older than what is kept of all versions (up to {lsn} has been dropped): start from now"
        )),
    }
}

/// Returns one page of the feed.
fn page(
    log: &WriteLog,
    container: &LocalContainer,
    mode: ReadMode,
    enveloped: bool,
    start: Start,
    range: &EpkRange,
    limit: PageLimit,
) -> Result<FeedPage, Dropped> {
    let after = start.lsn(log);
    match mode {
        ReadMode::Latest => {
            let found = log.latest_after(after, range, limit);
            let text = if enveloped { latest_envelope } else { with_lsn };
            Ok(FeedPage { items: found.items.into_iter().map(text).collect(), up_to: found.up_to })
        }
        ReadMode::AllVersions => {
            let found = log.versions_after(after, range, limit)?;
            let paths = &container.partitioning().paths;
            let items = found.items.into_iter().map(|version| version_envelope(version, paths)).collect();
            Ok(FeedPage { items, up_to: found.up_to })
        }
    }
}

fn start_of(ask: &Ask) -> Result<Start, Box<GatewayAnswer>> {
    match (ask.headers.get("if-none-match"), ask.headers.get("if-modified-since")) {
        (Some("*"), _) => Ok(Start::Now),
        (Some(token), _) => {
            let lsn = token.trim_start_matches("W/").trim_matches('"').parse();
            lsn.map(Start::After).map_err(|_| {
                Box::new(GatewayAnswer::bad_request("If-None-Match is not a continuation of this change feed"))
            })
        }
        (None, Some(time)) => time_of(time).map(Start::Time).ok_or_else(|| {
            Box::new(GatewayAnswer::bad_request(
                "If-Modified-Since is not a date: use the form of RFC 7231 or RFC 3339",
            ))
        }),
        (None, None) => Ok(Start::Beginning),
    }
}

fn time_of(text: &str) -> Option<u64> {
    let time = DateTime::parse_from_rfc2822(text).or_else(|_| DateTime::parse_from_rfc3339(text)).ok()?;
    u64::try_from(time.with_timezone(&Utc).timestamp()).ok()
}

/// Builds the response. `lsn` is the partition's current position, which the service returns with every response.
fn answer(container: &LocalContainer, page: &FeedPage, lsn: u64) -> GatewayAnswer {
    let mut answer = if page.items.is_empty() {
        let mut answer = GatewayAnswer::json(304, Bytes::new());
        answer.headers.remove("content-type");
        answer
    } else {
        GatewayAnswer::json(200, envelope(container.rid(), page.items.iter().map(AsRef::as_ref)))
    };
    answer.headers.set("etag", format!("\"{}\"", page.up_to));
    answer.headers.set("lsn", lsn.to_string());
    answer.headers.set(header::ITEM_COUNT, page.items.len().to_string());
    answer
}

/// `{"_rid":..,"Documents":[..],"_count":n}`
pub(super) fn envelope<'a>(rid: &str, items: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let count = items.len();
    let size: usize = items.clone().map(|item| item.len() + 1).sum();
    let mut body = Vec::with_capacity(size + 80);
    body.extend_from_slice(b"{\"_rid\":");
    body.extend_from_slice(Value::from(rid).to_string().as_bytes());
    body.extend_from_slice(b",\"Documents\":[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.extend_from_slice(format!("],\"_count\":{count}}}").as_bytes());
    body
}

/// Returns the document with `_lsn` as its last field. It is appended to the text, because parsing and serializing
/// could alter numbers.
fn with_lsn(document: &Document) -> Bytes {
    append_lsn(&document.text, document.lsn)
}

pub(super) fn append_lsn(text: &[u8], lsn: u64) -> Bytes {
    let Some(open) = text.trim_ascii_end().strip_suffix(b"}") else {
        return Bytes::copy_from_slice(text);
    };
    let mut out = Vec::with_capacity(text.len() + 24);
    out.extend_from_slice(open);
    if !open.trim_ascii_end().ends_with(b"{") {
        out.push(b',');
    }
    out.extend_from_slice(format!("\"_lsn\":{lsn}}}").as_bytes());
    out.into()
}

fn latest_envelope(document: &Document) -> Bytes {
    let current = with_lsn(document);
    let mut out = Vec::with_capacity(current.len() + 80);
    out.extend_from_slice(b"{\"current\":");
    out.extend_from_slice(&current);
    let metadata = format!(",\"metadata\":{{\"lsn\":{},\"crts\":{}}}}}", document.lsn, document.ts);
    out.extend_from_slice(metadata.as_bytes());
    out.into()
}

fn version_envelope(version: &Version, paths: &[String]) -> Bytes {
    let mut out = Vec::with_capacity(
        256 + version.text.as_ref().map_or(0, Bytes::len) + version.previous.as_ref().map_or(0, Bytes::len),
    );
    out.extend_from_slice(b"{\"current\":");
    out.extend_from_slice(version.text.as_deref().unwrap_or(b"{}"));
    if let Some(previous) = &version.previous {
        out.extend_from_slice(b",\"previous\":");
        out.extend_from_slice(previous);
    }
    let mut metadata = serde_json::json!({
        "operationType": version.operation.as_str(),
        "lsn": version.lsn,
        "crts": version.ts,
    });
    if let Some(lsn) = version.previous_lsn {
        metadata["previousImageLSN"] = lsn.into();
    }
    if version.text.is_none() {
        metadata["timeToLiveExpired"] = version.expired.into();
        metadata["id"] = version.key.id.as_str().into();
        metadata["partitionKey"] = partition_key_object(&version.partition_key, paths);
    }
    out.extend_from_slice(b",\"metadata\":");
    out.extend_from_slice(metadata.to_string().as_bytes());
    out.push(b'}');
    out.into()
}

/// Returns an object such as `{"pk":"x"}`: one property for each partition key path with a value.
pub(super) fn partition_key_object(header: &str, paths: &[String]) -> Value {
    let values: Vec<Value> = serde_json::from_str(header).unwrap_or_default();
    let named = paths.iter().zip(values).filter(|(_, value)| !value.is_object());
    Value::Object(named.map(|(path, value)| (path.trim_start_matches('/').to_owned(), value)).collect())
}

impl RangeError {
    fn into_answer(self) -> GatewayAnswer {
        match self {
            Self::Gone => gone(),
            Self::Invalid(message) => GatewayAnswer::bad_request(message),
        }
    }
}

/// The service's response when a physical partition was split or merged away: the client must look up the ranges again.
pub(super) fn gone() -> GatewayAnswer {
    GatewayAnswer::error(
        410,
        Some(1002),
        "Gone",
        "The requested partition key range is gone: it was split or merged. Read the ranges again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lsn_is_appended_without_touching_the_rest() {
        assert_eq!(append_lsn(b"{\"a\":1e2 }", 7), "{\"a\":1e2 ,\"_lsn\":7}");
        assert_eq!(append_lsn(b"{}", 7), "{\"_lsn\":7}");
    }

    #[test]
    fn a_start_is_read_from_the_headers() {
        let ask = |name: &str, value: &str| Ask::new(axum::http::Method::GET, "/").with_header(name, value);
        assert_eq!(start_of(&ask("if-none-match", "*")).unwrap(), Start::Now);
        assert_eq!(start_of(&ask("if-none-match", "\"12\"")).unwrap(), Start::After(12));
        assert!(start_of(&ask("if-none-match", "{}")).is_err());
        let since = ask("if-modified-since", "Thu, 01 Jan 1970 00:01:40 GMT");
        assert_eq!(start_of(&since).unwrap(), Start::Time(100));
        assert!(start_of(&ask("if-modified-since", "yesterday")).is_err());
        assert_eq!(start_of(&ask("x", "y")).unwrap(), Start::Beginning);
    }

    #[test]
    fn a_deleted_document_is_identified_by_the_paths_of_its_key() {
        let paths = ["/tenant".to_owned(), "/user/id".to_owned()];
        let object = partition_key_object("[\"t\",{}]", &paths);
        assert_eq!(object.to_string(), "{\"tenant\":\"t\"}");
    }
}

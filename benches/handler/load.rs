//! The load on a handler: batches of documents in bodies as the host sends them.

use axum::body::Bytes;
use cosmos_rewind::host::invocation;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

/// The kind of documents in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// One key a batch: transactional batches
    Shared,
    /// A key for each document: single writes (REWIND_BULK=off)
    Own,
    /// A key for each document: writes of many keys in one request (REWIND_BULK=auto)
    OwnBulk,
    /// One key a batch, documents with a date that is not read again (REWIND_FIDELITY=payload)
    Dates,
}

impl Scenario {
    pub const ALL: [Self; 4] = [Self::Shared, Self::Own, Self::OwnBulk, Self::Dates];

    /// The name in the raw results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Own => "own",
            Self::OwnBulk => "own-bulk",
            Self::Dates => "dates",
        }
    }

    /// The name in printed tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Shared => "one key a batch (transactional)",
            Self::Own => "a key for each (single writes)",
            Self::OwnBulk => "a key for each (bulk)",
            Self::Dates => "one key, dates, fidelity=payload",
        }
    }

    /// The handler's `REWIND_BULK`.
    pub fn bulk(self) -> &'static str {
        if self == Self::Own { "off" } else { "auto" }
    }

    fn has_own_keys(self) -> bool {
        matches!(self, Self::Own | Self::OwnBulk)
    }
}

/// The body of the invocation number `batch`.
pub fn body(scenario: Scenario, documents: usize, size: usize, batch: usize) -> String {
    let documents: Vec<Value> = (0..documents)
        .map(|i| {
            let id = format!("{batch:05}-{i:05}");
            let pk = if scenario.has_own_keys() { id.clone() } else { format!("{batch:05}") };
            let mut document = json!({
                "id": id, "pk": pk, "customer": "Ada Example", "amount": 1234.5, "tags": ["a", "b", "c"], "active": true,
                "address": {"street": "1 Main Street", "city": "Davidson", "zip": "28036"},
            });
            if scenario == Scenario::Dates {
                document["created"] = "2026-11-20T15:00:00Z".into();
            }
            let filler = size.saturating_sub(document.to_string().len() + 220);
            document["text"] = "lorem ipsum dolor ".repeat(filler / 18 + 1)[..filler].into();
            document["_rid"] = "47UeAPmUTk0GEQAAAAAAAA==".into();
            document["_self"] = "dbs/47UeAA==/colls/47UeAPmUTk0=/docs/47UeAPmUTk0GEQAAAAAAAA==/".into();
            document["_etag"] = format!("\"{batch:08x}-0000-0100-0000-{i:012x}\"").into();
            document["_attachments"] = "attachments/".into();
            document["_ts"] = 1_592_926_844.into();
            document["_lsn"] = (batch * 1000 + i).into();
            document
        })
        .collect();
    invocation::encode(
        "documents",
        &Value::from(documents).to_string(),
        &json!({"sys": {"MethodName": "CaptureChanges", "UtcNow": "2026-11-20T15:00:00Z", "RandGuid": "0d00"}}),
    )
}

/// Delivers invocations, `leases` at a time, chunked and without a length, as the host does.
pub async fn deliver(http: &reqwest::Client, root: &str, bodies: &[Bytes], leases: usize) {
    stream::iter(bodies)
        .for_each_concurrent(leases, |body| async move {
            let chunks: Vec<Result<Bytes, std::io::Error>> =
                (0..body.len()).step_by(16 << 10).map(|i| Ok(body.slice(i..body.len().min(i + (16 << 10))))).collect();
            let answer = http
                .post(format!("{root}CaptureChanges"))
                .header("content-type", "application/json; charset=utf-8")
                .body(reqwest::Body::wrap_stream(stream::iter(chunks)))
                .send()
                .await
                .expect("answer");
            assert_eq!(answer.status().as_u16(), 200, "{}", answer.text().await.unwrap_or_default());
        })
        .await;
}

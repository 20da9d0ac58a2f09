//! From the host's body to records that are ready to be written: no network, no runtime.

use std::hint::black_box;

use cosmos_rewind::{
    change::{
        Via,
        decode::decode,
        fidelity,
        key::KeyPaths,
        record::{self, RecordContext},
        version::Version,
    },
    host::invocation::{self, Payload},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

const DOCUMENTS: usize = 100;

fn array() -> String {
    let documents: Vec<_> = (0..DOCUMENTS)
        .map(|i| {
            json!({
                "id": format!("doc-{i}"), "pk": "one", "customer": "Ada Example", "amount": 1234.5, "tags": ["a", "b", "c"],
                "address": {"street": "1 Main Street", "city": "Davidson", "zip": "28036"},
                "text": "lorem ipsum dolor ".repeat(34), "_rid": "47UeAPmUTk0GEQAAAAAAAA==",
                "_self": "dbs/47UeAA==/colls/47UeAPmUTk0=/docs/47UeAPmUTk0GEQAAAAAAAA==/",
                "_etag": format!("\"{i:08x}-0000-0100-0000-5ef2227c0000\""), "_attachments": "attachments/",
                "_ts": 1_592_926_844, "_lsn": i,
            })
        })
        .collect();
    serde_json::Value::from(documents).to_string()
}

fn records(array: &str, paths: &KeyPaths) -> Vec<record::Record> {
    let items = cosmos_rewind::change::decode::items(array).expect("array");
    let mut changes = Vec::with_capacity(items.len());
    for item in items {
        decode(item, &mut changes).expect("document");
    }
    let context = RecordContext {
        via: Via::Trigger,
        at: "2026-11-20T15:00:00.123Z",
        at_seconds: 1_790_000_000,
        paths,
        source: None,
    };
    changes
        .iter()
        .map(|c| {
            record::build(c, None, record::may_be_altered(c, fidelity::Delivery::DatesRewritten), context)
                .expect("record")
        })
        .collect()
}

fn benchmarks(c: &mut Criterion) {
    let array = array();
    let body = invocation::encode("documents", &array, &json!({"sys": {}})).into_bytes();
    let paths = KeyPaths::parse(&["/pk", "/_originalId"]).expect("paths");
    let stored = records(&array, &paths);

    let mut group = c.benchmark_group("100 documents of 1 KB");
    group.throughput(Throughput::Elements(DOCUMENTS as u64));
    group.bench_function("body to payload (two layers of escapes)", |b| {
        b.iter(|| Payload::from_body(black_box(&body), "documents"));
    });
    group.bench_function("payload to records", |b| b.iter(|| records(black_box(&array), &paths)));
    group.bench_function("fidelity check", |b| {
        b.iter(|| fidelity::may_be_altered(black_box(&array), fidelity::Delivery::DatesRewritten))
    });
    group.bench_function("records to versions", |b| {
        b.iter(|| stored.iter().map(|r| Version::parse(&r.body).expect("version")).collect::<Vec<_>>());
    });
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);

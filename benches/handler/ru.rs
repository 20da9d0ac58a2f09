//! The cost of a captured document: measured where possible, otherwise calculated from published charges.
//!
//! The local account does not implement index policies. Requests, bytes and its own charge are therefore measured for
//! each layout, and the service's charge is calculated for each policy from the written records.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, process::Command};

use axum::body::Bytes;
use cosmos_rewind::restore::price;
use serde_json::{Value, json};

use crate::{
    Args,
    load::{self, Scenario},
    null::{Endpoint, Writes},
    process::Handler,
};

/// RU per index term, as two estimates, because the service publishes none. `cost` assumes the lower one for a further
/// path; the SDK's in-memory account charges the higher one for a property.
const TERM: [f64; 2] = [0.2, 0.3];

/// A partition key of the history from docs/history-format.md.
struct Layout {
    name: &'static str,
    /// The partition key of `changes`.
    changes: &'static [&'static str],
    /// The source's partition key. A history whose key omits a path of it is refused.
    source: &'static str,
}

const LAYOUTS: [Layout; 4] = [
    Layout { name: "/pk, /_originalId (provision)", changes: &["/pk", "/_originalId"], source: "/pk" },
    Layout { name: "/_originalId (provision, source by /id)", changes: &["/_originalId"], source: "/id" },
    Layout { name: "/pk (existing, as the source)", changes: &["/pk"], source: "/pk" },
    Layout { name: "/id (existing, source by /id)", changes: &["/id"], source: "/id" },
];

/// An index policy: included paths, composite indexes, and the paths beyond provision's default to pass to `cost`.
struct Policy {
    name: &'static str,
    included: &'static [&'static str],
    /// Whether there is an index at all. An index always includes `id` and `_ts`, whatever the paths.
    indexed: bool,
    composite: usize,
    /// The matching `cost --index-paths`, where `cost` supports the policy.
    further: Option<u32>,
}

const POLICIES: [Policy; 4] = [
    Policy { name: "none", included: &[], indexed: false, composite: 0, further: None },
    Policy {
        name: "provision",
        included: &["/_change/*", "/_originalId/?", "/pk/?"],
        indexed: true,
        composite: 1,
        further: Some(0),
    },
    Policy {
        name: "provision --index /customer --index /amount",
        included: &["/_change/*", "/_originalId/?", "/pk/?", "/customer/?", "/amount/?"],
        indexed: true,
        composite: 1,
        further: Some(2),
    },
    Policy { name: "everything", included: &["/*"], indexed: true, composite: 0, further: None },
];

/// Runs everything, prints tables and appends raw results.
pub async fn run(args: &Args) {
    let mut rows = String::new();
    println!(
        "| layout | keys | requests a document | record bytes | request bytes a document | RU a document, local account |"
    );
    println!("|---|---|---|---|---|---|");
    let mut terms = Vec::new();
    for layout in &LAYOUTS {
        let Layout { name, .. } = layout;
        for scenario in [Scenario::Own, Scenario::OwnBulk, Scenario::Shared] {
            let counted = capture(args, layout, scenario).await;
            println!(
                "| {name} | {} | {:.2} | {:.0} | {:.0} | {:.2} |",
                scenario.name(),
                counted.requests,
                counted.record_bytes,
                counted.bytes,
                counted.charged
            );
            for policy in &POLICIES {
                let found = counted.records.iter().map(|r| terms_of(r, policy)).sum::<usize>() as f64
                    / counted.records.len() as f64;
                let base = counted.records.iter().map(|r| price::create_ru(r.len(), 0)).sum::<f64>()
                    / counted.records.len() as f64;
                let said = policy.further.map(|further| cost(&args.handler, args.size, further));
                let said = said.map_or(String::new(), |ru| format!("{ru:.2}"));
                let [low, high] = TERM.map(|ru| base + found * ru);
                writeln!(
                    rows,
                    "\"{name}\",{},{},{},{:.4},{:.1},{:.1},{:.3},{found:.2},{base:.3},{low:.3},{high:.3},{said}",
                    scenario.name(),
                    policy.name,
                    args.size,
                    counted.requests,
                    counted.record_bytes,
                    counted.bytes,
                    counted.charged
                )
                .expect("text");
                if scenario == Scenario::Own && *name == LAYOUTS[0].name {
                    terms.push((policy.name, found, base, low, high, said));
                }
            }
        }
    }
    println!();
    println!(
        "| index policy | terms a record | RU without index | RU at 0.2 a term | RU at 0.3 a term | `cost` says |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, found, base, low, high, said) in terms {
        println!("| {name} | {found:.0} | {base:.2} | {low:.2} | {high:.2} | {said} |");
    }
    args.append(
        "layout,keys,policy,size,requests_per_document,record_bytes,request_bytes_per_document,local_ru,terms,ru_without_index,ru_low,ru_high,cost_says",
        &rows,
    );
}

/// Measurements for each document.
struct Counted {
    requests: f64,
    bytes: f64,
    record_bytes: f64,
    charged: f64,
    records: Vec<String>,
}

async fn capture(args: &Args, layout: &Layout, scenario: Scenario) -> Counted {
    let paths = layout.changes;
    let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
    let changes = json!({"id": "changes", "partitionKey": {"paths": paths, "kind": kind, "version": 2}});
    let endpoint = Endpoint::start(args.behaviour(Writes::Kept), layout.source, changes).await;
    let folder = tempfile::tempdir().expect("folder");
    let http = crate::client();
    let handler = Handler::start(args.own(scenario), folder.path(), &endpoint.connection, &http).await;
    let bodies: Vec<Bytes> =
        (0..args.batches).map(|b| Bytes::from(load::body(scenario, args.documents, args.size, b))).collect();
    load::deliver(&http, &handler.root, &bodies, args.leases).await;
    let documents = (args.batches * args.documents) as f64;
    let seen = endpoint.seen.counted();
    let records: Vec<String> = endpoint.seen.bodies.lock().expect("lock").iter().flat_map(records_in).collect();
    assert_eq!(records.len() as f64, documents, "every document was written once");
    let charged = *endpoint.seen.charged.lock().expect("lock");
    Counted {
        requests: seen.requests / documents,
        bytes: seen.bytes / documents,
        record_bytes: records.iter().map(String::len).sum::<usize>() as f64 / documents,
        charged: charged / documents,
        records,
    }
}

/// The records in a request: one for each operation of a batch, otherwise the body itself.
fn records_in(body: &Bytes) -> Vec<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Operation<'a> {
        #[serde(borrow)]
        resource_body: &'a serde_json::value::RawValue,
    }
    let text = std::str::from_utf8(body).expect("UTF-8");
    if !text.starts_with('[') {
        return vec![text.to_owned()];
    }
    let operations: Vec<Operation<'_>> = serde_json::from_str(text).expect("a batch");
    operations.iter().map(|operation| operation.resource_body.get().to_owned()).collect()
}

/// The index terms of a record: one for each path and value, and one for each composite index.
fn terms_of(record: &str, policy: &Policy) -> usize {
    if !policy.indexed {
        return 0;
    }
    let record: Value = serde_json::from_str(record).expect("JSON");
    let mut all = BTreeSet::new();
    scalars(&record, String::new(), &mut all);
    let included = |path: &str| {
        // The service always indexes these, and adds `_ts` to the record itself.
        path == "/id"
            || policy.included.iter().any(|pattern| {
                pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
                    || pattern.strip_suffix("/?").is_some_and(|exact| path == exact)
            })
    };
    all.iter().filter(|(path, _)| included(path)).count() + 1 + policy.composite
}

fn scalars(value: &Value, path: String, all: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| scalars(value, format!("{path}/{name}"), all))
        }
        Value::Array(elements) => elements.iter().for_each(|value| scalars(value, format!("{path}/[]"), all)),
        scalar => {
            all.insert((path, scalar.to_string()));
        }
    }
}

/// The charge for a version according to `cost`.
fn cost(handler: &Path, size: usize, further: u32) -> f64 {
    let output = Command::new(handler)
        .args(["cost", "--docs-per-day", "1000000", "--format", "json"])
        .args(["--size", &size.to_string(), "--index-paths", &further.to_string()])
        .output()
        .expect("cost");
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    said["ru_per_version"].as_f64().expect("ru_per_version")
}

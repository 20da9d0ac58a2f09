//! Dates that no calendar has. The server of these tests does not take them, so the archive is written by hand.

use cosmos_rewind::bson_text;
use serde_json::json;

use super::back::Back;
use crate::support::mongo_server::MongoServer;

#[tokio::test]
async fn a_filter_that_calculates_with_a_date_beyond_the_calendar_has_no_answer_and_does_not_end_the_program() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let archive = back.folder().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let dates = [("first", i64::MIN), ("early", -8_334_601_228_800_000), ("today", 1_796_000_000_000)];
    let dates = dates.into_iter().chain([("late", 8_210_266_876_799_999), ("last", i64::MAX)]);
    let events = dates.enumerate().map(|(n, (id, at))| {
        let doc = json!({ "id": id, "_id": id, "at": { "$date": { "$numberLong": at.to_string() } } });
        let version = format!("{id}~1795995238-0000007-00000");
        let etag = bson_text::fingerprint(&bson_text::bytes_of(&doc.to_string()).unwrap());
        let (ts, lsn) = (1_795_995_238, 822_063_610_724_576_i64 + n as i64);
        json!({
            "op": "create", "id": id, "pk": id, "ts": ts, "lsn": lsn, "version": version, "doc": doc, "previous": null,
            "changed": null, "ns": "shop.orders", "etag": etag,
        })
    });
    let lines: Vec<String> = events.map(|event| format!("{event}\n")).collect();
    std::fs::write(archive.join("events.jsonl"), lines.concat()).unwrap();
    for (filter, matching) in [
        (r#"doc.at + duration("1h") > doc.at"#, 1),
        (r#"doc.at - duration("1h") < doc.at"#, 1),
        (r#"duration("2000000h") + doc.at > doc.at"#, 1),
        (r#"doc.at - timestamp("2026-01-01T00:00:00Z") > duration("1h")"#, 1),
        (r#"doc.at.getDayOfYear("America/New_York") >= 0 && doc.at.getHours("Pacific/Kiritimati") >= 0"#, 5),
        (r#"doc.at > timestamp("9999-12-31T23:59:59Z")"#, 2),
        (r#"doc.at < timestamp("0001-01-01T00:00:00Z") && string(doc.at) != """#, 2),
    ] {
        let asked = ["restore", "--from-archive", "archive", "--filter", filter, "--at", "now", "--dry-run"];
        let output = back.ends(0, &[&asked[..], &["--recreate-deleted"]].concat()).await;
        assert!(output.stderr.contains(&format!(", {matching} recreate, ")), "{filter}: {output:?}");
    }
}

//! Properties that hold for any input. The fuzz targets call these functions with generated input.
//! `tests/fuzz_seeds.rs` includes this file and calls them with the seeds, with the stable compiler, in every test run.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    io::{Read as _, Write as _},
};

use chrono::{DateTime, FixedOffset, TimeZone as _, Utc};
use cosmos_rewind::{
    archive,
    backup::file as backup_file,
    change::{
        Change, TextOrigin, Via,
        decode::decode,
        diff, edit,
        fidelity::Delivery,
        key::{KeyPaths, parse_path, render_path},
        merge::{MergeRules, MergeWalk, Merged, Prefer, VersionAuthor, edited as with_edits},
        order::Position,
        raw::RawDocument,
        record::{self, MAX_ID_BYTES, MAX_ITEM_BYTES, RecordContext, Reread},
        time::{self, PointInTime},
        version::Version,
    },
    config::{AccountSettings, Credential, DeadLetterLocation, Settings},
    host::invocation::Payload,
    input,
    restore::{plan::Step, plan_file::Plan, read_plans},
};
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest as _, Sha256};

#[cfg(feature = "mongodb")]
mod bson;
#[cfg(feature = "mongodb")]
pub use self::bson::bson_text;

const AT: &str = "2026-11-20T15:00:00.123Z";

/// Containers with different keys: the usual one, one keyed by id, and a hierarchical one with a nested path.
fn key_paths() -> [KeyPaths; 3] {
    [&["/pk", "/_originalId"][..], &["/id"], &["/a", "/b/c", "/_originalId"]]
        .map(|paths| KeyPaths::parse(paths).expect("these are paths"))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The handler's path: body, payload, items, changes, records, and back.
pub fn invocation(data: &[u8]) {
    let payload = Payload::from_body(data, "documents");
    // The body may arrive in pieces of any size.
    for piece in [1, 2 + data.len() % 61] {
        assert_eq!(Payload::from_pieces(data.chunks(piece), "documents"), payload, "in pieces of {piece}");
    }
    let items = payload.as_ref().map_err(Clone::clone).and_then(|payload| payload.items("documents"));
    if let Some(expected) = layer_by_layer(data) {
        let items = items.as_ref().map(|items| items.iter().map(|item| item.get()).collect::<Vec<_>>());
        assert_eq!(items, Ok(expected.iter().map(|item| item.get()).collect()));
    }
    for item in items.unwrap_or_default() {
        each_record(item);
    }
}

/// The items of a body in the host's format, parsed with serde; `None` for any other format.
fn layer_by_layer(data: &[u8]) -> Option<Vec<Box<RawValue>>> {
    let body: Value = serde_json::from_slice(data).ok()?;
    let once: String = serde_json::from_str(body.get("Data")?.get("documents")?.as_str()?).ok()?;
    serde_json::from_str(&once).ok()
}

fn each_record(item: &RawValue) {
    let mut changes = Vec::new();
    if decode(item, &mut changes).is_err() {
        return;
    }
    assert!((1..=2).contains(&changes.len()));
    for change in &changes {
        for paths in key_paths() {
            recorded(change, &paths);
        }
    }
}

/// A change's record is parsed back to that change, lies where its key says, and is always the same.
fn recorded(change: &Change<'_>, paths: &KeyPaths) {
    let context = RecordContext { via: Via::Trigger, at: AT, at_seconds: 1_790_000_000, paths, source: None };
    let Ok(built) = record::build(change, None, record::may_be_altered(change, Delivery::DatesRewritten), context)
    else {
        assert!(change.op.is_tombstone(), "a document can always be recorded");
        return;
    };
    assert!(built.id.len() <= MAX_ID_BYTES && built.body.len() <= MAX_ITEM_BYTES || built.compressed);
    assert_eq!(
        record::build(change, None, record::may_be_altered(change, Delivery::DatesRewritten), context).as_ref(),
        Ok(&built)
    );
    let stored = RawDocument::parse(&built.body).expect("a record is a JSON object");
    assert_eq!(paths.extract(&stored), built.key, "{}", built.body);

    let version = Version::parse(&built.body).unwrap_or_else(|e| panic!("{e}: {}", built.body));
    assert_eq!((&version.record_id, version.id.as_str()), (&built.id, &*change.id));
    assert_eq!((version.op, version.lsn, version.prev_lsn), (Some(change.op), change.lsn, change.prev_lsn));
    assert_eq!(version.ts, change.ts.unwrap_or(context.at_seconds));
    let own = record::document_text(change).map(|text| plain_names(&text));
    assert_eq!(version.document, own);

    // Compression is slow: one in four is enough.
    if built.body.len().is_multiple_of(4)
        && let Some(small) = record::compress(&built, paths)
    {
        let unpacked = Version::parse(&small.body).expect("compressed, it is a record");
        assert_eq!((&unpacked.document, unpacked.position()), (&version.document, version.position()));
        let stored = RawDocument::parse(&small.body).expect("compressed, it is a JSON object");
        assert_eq!(paths.extract(&stored), built.key, "{}", small.body);
    }
    let partial = Version::parse(&record::partial(built, r#"{"fields":["/a"]}"#).body).expect("so is one of a part");
    assert!(partial.is_partial() && partial.document == version.document);
}

/// The format's documented exception: a reserved name that was spelled with escapes is stored without them.
fn plain_names(text: &str) -> String {
    let document = RawDocument::parse(text).expect("it was one before");
    let members = document.members().iter().map(|member| {
        let plain = ["id", "ttl", "_change", "_originalId"].into_iter().find(|name| member.is(name));
        let key = plain.map_or_else(|| member.key.get().to_owned(), |name| format!("\"{name}\""));
        format!("{key}:{}", member.value.get())
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Any text as a record, as a change of the feed, and as a document that was read again; also any generated document.
pub fn record(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(version) = Version::parse(text)
            && let Some(document) = &version.document
        {
            let _ = (diff::same(document, text), version.position().cmp(&version.position()));
        }
        if let Ok(item) = serde_json::from_str::<&RawValue>(text) {
            each_record(item);
        }
        let _ = record::own_text(text);
    }
    let document = Sower { bytes: data }.object();
    let id = edit::set(&document, &["id".into()], "\"an id\"").expect("it is an object");
    each_record(serde_json::from_str(&id).expect("it is JSON"));
    // A document that was read again is in its stored form, in which `_lsn` is the user's own field.
    let change = Change {
        op: cosmos_rewind::change::Op::Upsert,
        id: Cow::Borrowed("an id"),
        document: RawDocument::parse("{}").expect("an object"),
        text: "{}",
        text_origin: TextOrigin::Feed,
        ts: Some(5),
        lsn: Some(7),
        prev_lsn: None,
        metadata_key: None,
        healed: false,
        native: None,
        partial: None,
    };
    let [paths, ..] = key_paths();
    let context = RecordContext { via: Via::Trigger, at: AT, at_seconds: 5, paths: &paths, source: None };
    let built = record::build(&change, Some(Reread(&id)), false, context).expect("it can be recorded");
    let version = Version::parse(&built.body).expect("it is a record");
    let own = record::own_text(&id).expect("it is an object");
    assert_eq!(version.document, Some(plain_names(&own)));
}

/// A plan file as it is, and with a correct trailer, because a wrong checksum would hide everything else.
pub fn plan(data: &[u8]) {
    read_plan(data);
    let mut signed = data.trim_ascii_end().to_vec();
    signed.push(b'\n');
    let end = json!({"_end": {"steps": signed.iter().filter(|b| **b == b'\n').count() - 1, "sha256": sum(&signed)}});
    signed.extend_from_slice(end.to_string().as_bytes());
    read_plan(&signed);
}

fn sum(bytes: &[u8]) -> String {
    record::hex(&Sha256::digest(bytes))
}

fn read_plan(bytes: &[u8]) {
    // A file given by a user may hold several plans, with texts.
    match read_plans(bytes) {
        Ok(saved) => assert!(saved.iter().all(|one| one.plan.steps().all(|step| step.is_ok()))),
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
    let plan = match Plan::read(bytes, None) {
        Ok(plan) => plan,
        Err(problem) => return assert!(!problem.to_string().is_empty()),
    };
    let steps: Vec<Step> = plan.steps().map(|step| step.expect("what was checked can be read")).collect();
    assert_eq!(steps.len(), plan.totals.steps);
    assert_eq!(steps.iter().filter(|step| step.action.writes()).count(), plan.totals.writes);
    assert!(steps.iter().all(|step| step.item().is_ok()));
    assert!(serde_json::to_string(&plan).is_ok_and(|text| is_json(&text)));
    let mut text = String::new();
    plan.text().read_to_string(&mut text).expect("it was copied");
    let again = Plan::read(text.as_bytes(), Some(&plan.head.place)).expect("it is a plan still");
    assert_eq!((&again.head, again.totals), (&plan.head, plan.totals));
}

/// A file of an archive: one event, lines of events, or compressed lines (by another program, or here).
pub fn archive(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 4 {
        0 => events("a.json", data),
        1 => events("a.jsonl.gz", data),
        2 => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(data).expect("memory takes everything");
            let packed = packed.finish().expect("memory takes everything");
            let found = |name, bytes| archive::events_in(name, bytes).ok();
            assert_eq!(found("a.jsonl.gz", &packed), found("a.jsonl", data));
        }
        _ => events("a.jsonl", data),
    }
}

fn events(name: &str, data: &[u8]) {
    let all = match archive::events_in(name, data) {
        Ok(events) => events,
        Err(damage) => return assert!(!damage.to_string().is_empty()),
    };
    // An event without a time has no position among the others.
    let timeless = all.iter().any(|(_, event)| event.ts.is_none());
    let Ok(newest) = archive::newest_in(name, data) else { return assert!(timeless) };
    assert!(!timeless);
    let mut expected: HashMap<(String, String), (Position<'_>, u64)> = HashMap::new();
    for (line, event) in &all {
        // `follow` writes the same event again, on one line.
        let text = event.to_line();
        assert!(!text.contains('\n'));
        let again = archive::events_in("b.json", text.as_bytes()).expect("an event as follow writes it");
        let flat = |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| text.replace(['\n', '\r'], " ").into());
        let mut flattened = event.clone();
        (flattened.doc, flattened.previous) = (flat(&event.doc), flat(&event.previous));
        assert_eq!(again, [(0, flattened)]);

        let position =
            Position { ts: event.ts.expect("an index needs times"), lsn: event.lsn, record_id: &event.version };
        let item = (event.id.clone().into_owned(), event.pk.to_json().to_string());
        match expected.get(&item) {
            Some((best, _)) if *best >= position => {}
            _ => drop(expected.insert(item, (position, *line))),
        }
    }
    // A key may have several spellings and then counts several times, but no document may be lost.
    let lines: HashSet<u64> = newest.iter().map(|wanted| wanted.line).collect();
    assert!(expected.values().all(|(_, line)| lines.contains(line)));
}

/// A backup file as it is and with a correct trailer, and the same bytes as documents in any spelling.
pub fn backup(data: &[u8]) {
    read_backup(data);
    let mut signed = data.trim_ascii_end().to_vec();
    if !signed.is_empty() {
        signed.push(b'\n');
    }
    let lines = signed.iter().filter(|b| **b == b'\n').count();
    let trailer = json!({"_backup": {
        "v": 1, "documents": lines, "sha256": sum(&signed), "source": "dev/events", "at": null, "made": AT,
    }});
    signed.extend_from_slice(trailer.to_string().as_bytes());
    read_backup(&signed);

    let mut items = 0_usize;
    let _ = input::read(data, |item| {
        items += 1;
        assert!(!item.place.is_empty());
        if let Ok(text) = &item.text {
            assert!(RawDocument::parse(text).is_ok());
            let line = backup_file::one_line(text);
            assert!(!line.contains(['\n', '\r']) && diff::same(&line, text), "{text:?} {line:?}");
        }
        true
    });
    assert!(items <= data.len() + 1);
    let mut first = 0;
    let _ = input::read(data, |_| {
        first += 1;
        false
    });
    assert!(first <= 1, "reading stops when the caller stops it");
}

fn read_backup(bytes: &[u8]) {
    let mut passed = 0;
    let read = backup_file::read(bytes, |number, text| {
        passed += 1;
        assert_eq!(number, passed);
        assert!(!text.contains('\n'));
        true
    });
    match read {
        Ok(trailer) => {
            assert_eq!(trailer.documents, passed);
            let _ = trailer.moment();
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}

/// Stands for a secret. No error may show the text that contains it, whatever surrounds it.
const MARK: &str = "c2VjcmV0";

/// Connection strings, endpoints, and URLs of blob containers and archives.
pub fn connection(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for name in ["CosmosDB", "CosmosDB__accountEndpoint"] {
        match AccountSettings::from_settings(&Settings::from_pairs([(name, text)])) {
            Ok(account) => {
                assert!(matches!(account.endpoint.scheme(), "http" | "https"));
                assert!(account.endpoint.username().is_empty() && account.endpoint.password().is_none());
                if let Credential::Key(key) = &account.credential {
                    assert!(!key.expose().is_empty());
                    assert!(!format!("{:?}", account.credential).contains(key.expose()) || key.expose().len() < 4);
                }
            }
            Err(e) => assert!(!e.to_string().contains(MARK), "{e}"),
        }
    }
    match DeadLetterLocation::parse("X", text, std::path::Path::new("/app")) {
        Ok(DeadLetterLocation::Blob(url)) => {
            let (container, folder) = url.split();
            assert!(!folder.starts_with('/') && !folder.ends_with('/'), "{folder}");
            assert_eq!(container.expose().query(), url.expose().query());
            assert_eq!(container.has_sas(), url.has_sas());
            for shown in [url.to_string(), format!("{url:?}"), container.to_string()] {
                let path = url.expose().path();
                let host = url.expose().host_str().unwrap_or_default();
                assert!(!shown.contains(MARK) || path.contains(MARK) || host.contains(&MARK.to_lowercase()), "{shown}");
                assert!(!shown.contains(['?', '@', '#']) || path.contains('@'), "{shown}");
            }
        }
        Ok(DeadLetterLocation::Directory(_)) => assert!(!text.starts_with("https://") && !text.starts_with("http://")),
        Err(e) => assert!(!e.to_string().contains(MARK), "{e}"),
    }
    if let Some(url) = text.strip_prefix("blob:")
        && let Err(e) = archive::Archive::open(text, &Credential::Developer)
    {
        let said = e.to_string();
        assert!(!said.contains("sig="), "{said}");
        let authority =
            url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
        if let Some((user, rest)) = authority.rsplit_once('@')
            && user.contains(MARK)
        {
            assert!(!said.contains(MARK) || url.replacen(user, "", 1).contains(MARK) || rest.contains(MARK), "{said}");
        }
    }
    if let Ok(segments) = parse_path(text) {
        assert!(segments.iter().all(|segment| !segment.is_empty()));
        let rendered = render_path(&segments);
        assert_eq!(parse_path(&rendered).as_ref(), Ok(&segments), "{rendered}");
    }
}

/// Points in time and spans in user notation, in three time zones.
pub fn time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for east in [0, 2 * 3600, -11 * 3600 - 1800] {
        let zone = FixedOffset::east_opt(east).expect("a zone");
        let now: DateTime<FixedOffset> = zone.with_ymd_and_hms(2026, 11, 20, 15, 0, 0).single().expect("a time");
        match PointInTime::parse(text, &now) {
            Ok(point) => {
                assert!(point.seconds() <= now.timestamp());
                let shown = point.to_string();
                let again = PointInTime::parse(&shown, &now.with_timezone(&Utc));
                // RFC 3339 cannot express years before 0.
                if point.seconds() >= -62_135_596_800 {
                    assert_eq!(again, Ok(point), "{shown}");
                }
            }
            Err(e) => assert!(!e.problem.is_empty() && !e.hint.is_empty()),
        }
    }
    if let Some(seconds) = time::seconds_of(text) {
        let spelled = time::span_text(seconds);
        let again = time::seconds_of(&spelled).expect("what it writes it reads");
        // Two units: the omitted remainder is smaller than one of the second unit.
        assert!(again <= seconds && seconds - again < 86_400, "{seconds} {spelled}");
    }
}

/// A diff leads from one document to the other. A set field is present, a removed one is not, and everything else
/// stays.
pub fn edit_diff(data: &[u8]) {
    let mut sower = Sower { bytes: data };
    let (before, after) = (sower.object(), sower.object());
    differ(&before, &after);
    edited(&before, &["a".into()], &after);
    edited(&before, &["b".into(), "a".into()], "1.10");
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (before, after) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let _ = (diff::between(before, after), diff::same(before, after));
    if is_json(before) && is_json(after) {
        differ(before, after);
        if let Some(Ok(path)) = lines.next().map(parse_path) {
            edited(before, &path, after);
        }
    }
}

/// The history of a document with some writes to undo: documents made of the bytes, and one line of text each, whose
/// first character names the writer.
pub fn merge(data: &[u8]) {
    let mut sower = Sower { bytes: data };
    let texts: Vec<String> = (0..4).map(|_| sower.object()).collect();
    for undone in 0..8 {
        let write = |(place, text): (usize, &String)| (undone >> place & 1 == 1, Some(text.clone()));
        merges(Some(&texts[0]), &texts[1..].iter().enumerate().map(write).collect::<Vec<_>>());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines().map(|line| (line.starts_with('-'), line.get(1..).unwrap_or_default()));
    let object = |text: &str| RawDocument::parse(text).is_ok().then(|| text.to_owned());
    let Some(base) = lines.next().map(|(_, text)| object(text)) else { return };
    let writes: Vec<(bool, Option<String>)> =
        lines.take(12).map(|(is_undone, text)| (is_undone, object(text))).collect();
    merges(base.as_deref(), &writes);
}

fn merges(base: Option<&str>, writes: &[(bool, Option<String>)]) {
    let keyed = vec!["/a=/b".parse().expect("it is a key")];
    for array_keys in [Vec::new(), keyed] {
        let rules = MergeRules { array_keys, ..MergeRules::default() };
        let merged = merged(&rules, base, writes);
        let today = writes.last().map_or(base, |(_, text)| text.as_deref());
        // The edits stored in a plan lead to the same result.
        let named = writes.iter().enumerate().map(|(n, (_, text))| (n.to_string(), text.clone()));
        let named = named.chain([("base".to_owned(), base.map(str::to_owned))]);
        let texts: HashMap<String, String> = named.filter_map(|(name, text)| Some((name, text?))).collect();
        assert_eq!(with_edits(today, &merged.edits, &texts).as_ref(), Ok(&merged.text));
        let same = |a: Option<&str>, b: Option<&str>| match (a, b) {
            (Some(a), Some(b)) => diff::same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if writes.iter().all(|(is_undone, _)| *is_undone) && rules.array_keys.is_empty() {
            assert!(same(merged.text.as_deref(), base), "{base:?} {writes:?}: {merged:?}");
            assert!(merged.conflicts.is_empty(), "{base:?} {writes:?}: {merged:?}");
        }
        if writes.iter().all(|(is_undone, _)| !is_undone) {
            assert_eq!((merged.text.as_deref(), merged.edits.len()), (today, 0));
            assert!(merged.conflicts.is_empty() && merged.taken.is_empty());
        }
        let ours = self::merged(&MergeRules { prefer: Some(Prefer::Ours), ..rules.clone() }, base, writes);
        assert_eq!((&ours.text, ours.settled), (&merged.text, merged.conflicts.len()));
        let base = self::merged(&MergeRules { prefer: Some(Prefer::Base), ..rules }, base, writes);
        assert_eq!(base.settled + base.conflicts.len(), merged.conflicts.len());
    }
}

fn merged(rules: &MergeRules, base: Option<&str>, writes: &[(bool, Option<String>)]) -> Merged {
    let mut walk = MergeWalk::from(base.map(|text| ("base".to_owned(), text.to_owned())), rules);
    for (number, (is_undone, text)) in writes.iter().enumerate() {
        let by = if *is_undone { VersionAuthor::Undone } else { VersionAuthor::Kept };
        walk.step(by, number.to_string(), text.clone()).expect("documents are objects");
    }
    walk.finish().expect("documents are objects")
}

fn differ(before: &str, after: &str) {
    let differences = diff::between(before, after);
    assert_eq!(differences.is_empty(), diff::same(before, after), "{before} {after}");
    assert!(diff::between(before, before).is_empty() && diff::same(after, after));
    // The oracle works on parsed values with different number semantics, so compare only what it can distinguish.
    let (Ok(mut patched), Ok(wanted)) = (serde_json::from_str::<Value>(before), serde_json::from_str::<Value>(after))
    else {
        return;
    };
    let operations: Option<Vec<Value>> = differences
        .iter()
        .map(|d| {
            let mut operation = json!({"op": d.operation(), "path": d.pointer()});
            if let Some(value) = d.after {
                operation["value"] = serde_json::from_str(value).ok()?;
            }
            Some(operation)
        })
        .collect();
    let Some(operations) = operations else { return };
    let patch: json_patch::Patch = serde_json::from_value(operations.into()).expect("it is a JSON Patch");
    json_patch::patch(&mut patched, &patch).unwrap_or_else(|e| panic!("{e}: {before} {after}"));
    assert!(diff::same(&patched.to_string(), &wanted.to_string()), "{before} {after} {patched}");
}

fn edited(text: &str, path: &[String], value: &str) {
    if !is_json(value) {
        return;
    }
    if let Ok(set) = edit::set(text, path, value) {
        assert!(is_json(&set), "{text} {path:?} {value} {set}");
        assert_eq!(diff::value_at(&set, path).map(str::trim), Some(value.trim()), "{text} {path:?} {set}");
        only_at(text, &set, path);
    }
    if let Ok(removed) = edit::remove(text, path) {
        assert!(is_json(&removed), "{text} {path:?} {removed}");
        only_at(text, &removed, path);
        // A path may lead through an array; nothing can be set in or removed from one.
        let through_objects = (0..path.len())
            .all(|i| diff::value_at(text, &path[..i]).is_none_or(|parent| parent.trim_start().starts_with('{')));
        assert!(!through_objects || diff::value_at(&removed, path).is_none(), "{text} {path:?} {removed}");
    }
}

/// All differences are at the path, below it, or in the objects that lead to it.
fn only_at(before: &str, after: &str, path: &[String]) {
    for difference in diff::between(before, after) {
        let common = difference.path.iter().zip(path).take_while(|(a, b)| a == b).count();
        let fits = common == difference.path.len().min(path.len());
        assert!(fits, "{before} {path:?} {after} {:?}", difference.path);
    }
}

/// Makes JSON objects of bytes, in spellings that a parser would not preserve.
struct Sower<'a> {
    bytes: &'a [u8],
}

impl Sower<'_> {
    fn next(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    fn object(&mut self) -> String {
        self.object_at(0)
    }

    fn object_at(&mut self, depth: usize) -> String {
        const NAMES: [&str; 16] = [
            "\"a\"",
            "\"b\"",
            "\"c\"",
            "\"\\u0061\"",
            "\"pk\"",
            "\"ttl\"",
            "\"_change\"",
            "\"_originalId\"",
            "\"_etag\"",
            "\"_ts\"",
            "\"_rid\"",
            "\"_lsn\"",
            "\"a/b~\"",
            "\"\\ud800\"",
            "\"é\"",
            "\"\\u0074tl\"",
        ];
        let count = self.next() % 6;
        let members = (0..count).map(|_| {
            let name = NAMES[usize::from(self.next()) % NAMES.len()];
            format!("{name}{}{}", if self.next().is_multiple_of(8) { " : " } else { ":" }, self.value(depth + 1))
        });
        let members: Vec<String> = members.collect();
        format!("{{{}}}", members.join(if self.next().is_multiple_of(8) { " , " } else { "," }))
    }

    fn value(&mut self, depth: usize) -> String {
        const LEAVES: [&str; 20] = [
            "null",
            "true",
            "0",
            "-0.0",
            "1.10",
            "1.1",
            "100",
            "1E+2",
            "1e400",
            "9007199254740993",
            "\"\"",
            "\"a\"",
            "\"\\u0061\"",
            "\"\\ud800\"",
            "\"\u{FFFD}\"",
            "\"\\ud83d\\ude00\"",
            "\"2020-01-01T00:00:00Z\"",
            "{}",
            "[]",
            "\"\\\"x\\\"\"",
        ];
        match self.next() {
            kind if depth < 6 && kind < 48 => self.object_at(depth),
            kind if depth < 6 && kind < 96 => {
                let elements: Vec<String> = (0..self.next() % 5).map(|_| self.value(depth + 1)).collect();
                format!("[{}]", elements.join(","))
            }
            kind if kind < 128 => format!("{}.{}e{}", self.next(), self.next(), i32::from(self.next()) - 128),
            kind => LEAVES[usize::from(kind) % LEAVES.len()].to_owned(),
        }
    }
}

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets by the names of their folders.
pub const TARGETS: &[Target] = &[
    ("archive", archive),
    ("backup", backup),
    #[cfg(feature = "mongodb")]
    ("bson_text", bson_text),
    ("connection", connection),
    ("edit_diff", edit_diff),
    ("invocation", invocation),
    ("merge", merge),
    ("plan", plan),
    ("record", record),
    ("time", time),
];

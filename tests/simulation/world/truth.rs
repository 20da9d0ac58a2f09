//! The account's own feed as the truth, and the history in comparable form.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cosmos_rewind::{
    change::{key::PartitionKey, version::Version},
    cosmos::{Container, Failure, FeedMode, FeedRange, FeedStart, Status},
};
use serde_json::{Value, json};

const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];

/// Id and partition key.
pub type Item = (String, String);

/// The documents of a container.
pub type Documents = BTreeMap<Item, String>;

/// Panics with the items in which two states of a container differ.
#[track_caller]
pub fn assert_same(seed: u64, is: &Documents, should: &Documents, what: &str) {
    let short = |text: Option<&String>| text.map(|text| text.chars().take(120).collect::<String>());
    let items: BTreeSet<&Item> = is.keys().chain(should.keys()).collect();
    let differ: Vec<_> = items
        .into_iter()
        .filter(|item| is.get(*item) != should.get(*item))
        .map(|item| (item, short(is.get(item)), short(should.get(item))))
        .collect();
    assert!(differ.is_empty(), "seed {seed}: {what}: (item, is, should be) {differ:#?}");
}

/// Whether a document does not expire.
pub fn is_lasting(item: &Item) -> bool {
    !item.0.starts_with("short")
}

/// An item's partition key.
pub fn key(item: &Item) -> PartitionKey {
    PartitionKey::parse(&json!([item.1]).to_string()).unwrap()
}

/// The documents at a moment.
pub fn at(truth: &Lives, moment: i64) -> Documents {
    let in_force = truth.iter().filter_map(|(item, life)| {
        let told = life.iter().rfind(|told| told.ts <= moment)?;
        Some((item.clone(), told.text.clone()?))
    });
    in_force.collect()
}

/// The documents whose last version up to a moment comes from a container that had been deleted by then: the next
/// container had been written to. `remade` is the last second of the earlier container.
pub fn gone_with_their_container(truth: &Lives, moment: i64, remade: Option<i64>) -> BTreeSet<Item> {
    let Some(remade) = remade else { return BTreeSet::new() };
    let began = |told: &Told| told.ts > remade && told.ts <= moment;
    if !truth.values().flatten().any(began) {
        return BTreeSet::new();
    }
    let last =
        |life: &Vec<Told>| life.iter().rfind(|told| told.ts <= moment).map(|told| (told.ts, told.text.is_some()));
    let of_before = truth.iter().filter(|(_, life)| last(life).is_some_and(|(ts, is_there)| is_there && ts <= remade));
    of_before.map(|(item, _)| item.clone()).collect()
}

/// The lasting documents of a live container: texts and ETags.
pub async fn live(events: &Container) -> (Documents, BTreeMap<Item, String>) {
    let (mut texts, mut etags) = (Documents::new(), BTreeMap::new());
    for raw in events.query_all("SELECT * FROM c", &[], None).await.unwrap() {
        let document: Value = serde_json::from_str(raw.get()).unwrap();
        let text = |name: &str| document[name].as_str().unwrap().to_owned();
        let item = (text("id"), text("pk"));
        if is_lasting(&item) {
            etags.insert(item.clone(), text("_etag"));
            texts.insert(item, plain(document));
        }
    }
    (texts, etags)
}

/// The state that a restore must reach, except for documents that another writer changed first.
pub fn settled(is: &Documents, moved: &BTreeSet<Item>, quicker: &Documents) -> Documents {
    let untouched = is.iter().filter(|(item, _)| !moved.contains(*item));
    let others = quicker.iter().filter(|(item, _)| moved.contains(*item));
    untouched.chain(others).map(|(item, text)| (item.clone(), text.clone())).collect()
}

/// A version from the account's feed or from the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub ts: i64,
    pub lsn: i64,
    /// `None` for a delete or an expiry.
    pub text: Option<String>,
    pub etag: Option<String>,
}

/// All versions by item, in order.
pub type Lives = BTreeMap<Item, Vec<Told>>;

/// A container's feed items, by the range they were in at the beginning.
pub async fn feed(events: &Container, beginning: &[(FeedRange, String)]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (range, token) in beginning {
        all.push(read_from(events, range, token).await.0);
    }
    all
}

/// The feed items of a range after a token, and the next token.
pub async fn read_from(events: &Container, range: &FeedRange, token: &str) -> (Vec<String>, String) {
    let partitions = events.feed_ranges(true).await.unwrap();
    let below = partitions.iter().filter(|part| part.intersection(range).is_some()).count();
    let open = events.change_feed(range, FeedMode::AllVersions, FeedStart::Now, Some(token));
    let mut feed = open.await.unwrap();
    let (mut items, mut empty) = (Vec::new(), 0);
    // After a split, an empty page concerns only one of the partitions below the range.
    while empty < below {
        let page = feed.next().await.unwrap();
        let found = page.items().unwrap();
        empty = if found.is_empty() { empty + 1 } else { 0 };
        items.extend(found.into_iter().map(|item| item.get().to_owned()));
    }
    (items, feed.token().unwrap())
}

/// What happened, from feed items.
pub fn happened<'a>(envelopes: impl Iterator<Item = &'a String>) -> Lives {
    let mut lives = Lives::new();
    for item in envelopes {
        let (item, told) = told(&serde_json::from_str(item).unwrap());
        lives.entry(item).or_default().push(told);
    }
    for life in lives.values_mut() {
        life.sort_by_key(|told| told.lsn);
    }
    lives
}

/// A history in its own order; every record of a version counts.
pub async fn captured(changes: &Container) -> Lives {
    let sql = "SELECT * FROM c WHERE NOT IS_DEFINED(c._restore)";
    let mut found: BTreeMap<Item, Vec<Version>> = BTreeMap::new();
    for record in changes.query_all(sql, &[], None).await.unwrap() {
        let key: Value = serde_json::from_str(record.get()).unwrap();
        let version = Version::parse(record.get()).unwrap();
        let item = (version.id.clone(), key["pk"].as_str().unwrap().to_owned());
        found.entry(item).or_default().push(version);
    }
    let lives = found.into_iter().map(|(item, mut versions)| {
        versions.sort_by(|a, b| a.position().cmp(&b.position()));
        let told = versions.into_iter().map(|v| Told {
            ts: v.ts,
            lsn: v.lsn.unwrap_or(-1),
            etag: v.etag.filter(|_| v.document.is_some()),
            text: v.document,
        });
        (item, told.collect())
    });
    lives.collect()
}

/// Panics with the first items in which two histories differ.
#[track_caller]
pub fn assert_captured(truth: &Lives, history: &Lives, what: &str) {
    let items: std::collections::BTreeSet<&Item> = truth.keys().chain(history.keys()).collect();
    let short = |lives: &Lives, item: &Item| {
        let life = lives.get(item).into_iter().flatten();
        life.map(|t| (t.ts, t.lsn, t.text.as_ref().map(|x| x.chars().take(90).collect::<String>()))).collect::<Vec<_>>()
    };
    let differ: Vec<_> = items
        .into_iter()
        .filter(|item| truth.get(*item) != history.get(*item))
        .map(|item| (item, short(truth, item), short(history, item)))
        .take(3)
        .collect();
    let count = |lives: &Lives| lives.values().map(Vec::len).sum::<usize>();
    let (happened, captured) = (count(truth), count(history));
    assert!(
        differ.is_empty(),
        "{what}: {happened} versions happened, {captured} are in the history\n(item, happened, captured): {differ:#?}"
    );
}

/// Repeats a write while its partition is being split or merged. The account refuses it then without applying it.
pub async fn unless_moving<T, F>(mut write: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    loop {
        match write().await {
            Err(failure) if failure.status == Status::new(410, 1007) => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            done => return done,
        }
    }
}

/// A document as its user wrote it, without the service's own fields.
pub fn plain(mut document: Value) -> String {
    let object = document.as_object_mut().unwrap();
    SYSTEM.iter().for_each(|name| drop(object.shift_remove(*name)));
    document.to_string()
}

fn told(envelope: &Value) -> (Item, Told) {
    let (current, metadata) = (&envelope["current"], &envelope["metadata"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let exists = current.get("id").is_some();
    let item = match exists {
        true => (text(&current["id"]), text(&current["pk"])),
        false => (text(&metadata["id"]), text(&metadata["partitionKey"]["pk"])),
    };
    let told = Told {
        ts: if exists { &current["_ts"] } else { &metadata["crts"] }.as_i64().unwrap(),
        lsn: metadata["lsn"].as_i64().unwrap(),
        etag: exists.then(|| text(&current["_etag"])),
        text: exists.then(|| plain(current.clone())),
    };
    (item, told)
}

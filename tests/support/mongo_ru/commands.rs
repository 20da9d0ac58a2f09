//! The commands that a reader, a writer and the driver send.

use std::collections::VecDeque;

use bson::{Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};

use super::{
    Answer, Cursor, PageFault, World,
    feed::{self, Place},
    wire::Message,
};

/// A code, its name and a message.
struct Refused(i32, &'static str, String);

type Outcome = Result<Answer, Refused>;

fn too_many_requests() -> Refused {
    let message = "Error=16500, RetryAfterMs=34, Details='Response status code does not indicate success: \
                   TooManyRequests (429); Substatus: 3200'";
    Refused(16500, "RequestRateTooLarge", message.into())
}

fn not_found(name: &str) -> Refused {
    Refused(59, "CommandNotFound", format!("Command {name} not supported"))
}

fn bad(message: impl Into<String>) -> Refused {
    Refused(2, "BadValue", message.into())
}

/// Whether drivers send this command on their own.
pub fn is_greeting(name: &str) -> bool {
    ["hello", "isMaster", "ismaster", "ping", "endSessions", "buildInfo"].contains(&name)
}

pub fn run(world: &mut World, message: &Message, name: &str, command: &Document) -> Answer {
    let is_throttled = world.throttled.get_mut(name).is_some_and(|left| {
        let is_left = *left > 0;
        *left = left.saturating_sub(1);
        is_left
    });
    let outcome = match name {
        _ if is_throttled => Err(too_many_requests()),
        _ if world.unknown.iter().any(|unknown| unknown == name) => Err(not_found(name)),
        "hello" | "isMaster" | "ismaster" => Ok(reply(&hello(world))),
        "ping" | "endSessions" => Ok(reply(&doc! { "ok": 1.0 })),
        "buildInfo" => Ok(reply(&doc! { "version": "4.2.0", "versionArray": [4, 2, 0, 0], "ok": 1.0 })),
        "insert" => insert(world, message, command),
        "update" => update(world, message, command),
        "delete" => delete(world, message, command),
        "find" => find(world, command),
        "aggregate" => watch(world, command),
        "getMore" => get_more(world, command),
        "killCursors" => Ok(kill_cursors(world, command)),
        "customAction" => custom_action(world, command),
        "listCollections" => Ok(list_collections(world, command)),
        "listDatabases" => Ok(list_databases(world)),
        _ => Err(not_found(name)),
    };
    outcome.unwrap_or_else(|Refused(code, name, message)| {
        reply(&doc! { "ok": 0.0, "errmsg": message, "code": code, "codeName": name })
    })
}

fn reply(document: &Document) -> Answer {
    Answer::Reply(RawDocumentBuf::try_from(document).unwrap())
}

/// Reports a replica set with one member, the set that the service's connection strings name. Without topologyVersion
/// the driver polls instead of waiting for changes.
fn hello(world: &World) -> Document {
    let address = world.address.expect("it listens").to_string();
    doc! {
        "ismaster": true, "isWritablePrimary": true, "helloOk": true, "setName": "globaldb", "setVersion": 1,
        "hosts": [&address], "primary": &address, "me": &address,
        "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 1000,
        "localTime": bson::DateTime::now(), "logicalSessionTimeoutMinutes": 30,
        "minWireVersion": 0, "maxWireVersion": world.wire_version, "readOnly": false, "ok": 1.0,
    }
}

/// The namespace that a command addresses.
fn namespace(command: &Document, name: &str) -> Result<(String, String), Refused> {
    match (command.get_str("$db"), command.get_str(name)) {
        (Ok(database), Ok(collection)) => Ok((database.to_owned(), collection.to_owned())),
        // The service cannot watch a whole database or deployment.
        _ => Err(bad(format!("{name} needs the name of a collection"))),
    }
}

fn missing(namespace: &(String, String)) -> Refused {
    Refused(26, "NamespaceNotFound", format!("Collection {}.{} doesn't exist.", namespace.0, namespace.1))
}

/// Refuses retryable writes: they need sessions and transaction numbers, and the service has neither.
fn refuse_retryable(command: &Document) -> Result<(), Refused> {
    if command.contains_key("txnNumber") {
        return Err(bad("Retryable writes are not supported. Please disable retryable writes by specifying \
                        \"retrywrites=false\" in the connection string or an equivalent driver specific config."));
    }
    Ok(())
}

fn insert(world: &mut World, message: &Message, command: &Document) -> Outcome {
    refuse_retryable(command)?;
    let namespace = namespace(command, "insert")?;
    if !world.collections.contains_key(&namespace) {
        // A write creates a missing collection, with one partition and without a shard key of its own.
        world.create(&namespace.0, &namespace.1, "_id", 1);
    }
    let collection = world.collections.get_mut(&namespace).expect("it exists now");
    let (mut n, mut errors) = (0, Vec::new());
    for (index, raw) in message.documents("documents").into_iter().enumerate() {
        if collection.insert(raw) {
            n += 1;
        } else {
            let index = i32::try_from(index).unwrap();
            errors.push(doc! { "index": index, "code": 11000, "errmsg": "E11000 duplicate key error collection" });
        }
    }
    let mut answer = doc! { "n": n, "ok": 1.0 };
    if !errors.is_empty() {
        answer.insert("writeErrors", errors);
    }
    Ok(reply(&answer))
}

fn update(world: &mut World, message: &Message, command: &Document) -> Outcome {
    refuse_retryable(command)?;
    let namespace = namespace(command, "update")?;
    let (mut n, mut modified, mut upserted) = (0, 0, Vec::new());
    for (index, statement) in message.documents("updates").into_iter().enumerate() {
        let filter = Document::try_from(statement.get_document("q").map_err(|e| bad(e.to_string()))?).unwrap();
        let change = statement.get_document("u").map_err(|_| bad("an update by pipeline is not supported"))?;
        if !world.collections.contains_key(&namespace) {
            world.create(&namespace.0, &namespace.1, "_id", 1);
        }
        let collection = world.collections.get_mut(&namespace).expect("it exists now");
        let (found, changed) = collection.change(&filter, |old| changed(old, change)).map_err(bad)?;
        n += i32::from(found);
        modified += i32::from(changed);
        if !found && statement.get_bool("upsert").unwrap_or(false) {
            let raw = with_id(change, filter.get("_id"))?;
            upserted.push(doc! { "index": i32::try_from(index).unwrap(), "_id": id_of(&raw) });
            collection.insert(raw);
            n += 1;
        }
    }
    let mut answer = doc! { "n": n, "nModified": modified, "ok": 1.0 };
    if !upserted.is_empty() {
        answer.insert("upserted", upserted);
    }
    Ok(reply(&answer))
}

fn id_of(raw: &RawDocument) -> Bson {
    raw.get("_id").unwrap().map_or(Bson::Null, |id| Bson::try_from(id).unwrap())
}

/// The replacement with `_id` in front; a replacement may leave it out.
fn with_id(raw: &RawDocument, id: Option<&Bson>) -> Result<RawDocumentBuf, Refused> {
    if raw.get("_id").unwrap().is_some() {
        return Ok(raw.to_owned());
    }
    let id = id.ok_or_else(|| bad("an upsert needs _id"))?.clone();
    let mut with_id = RawDocumentBuf::try_from(&doc! { "_id": id }).unwrap();
    for field in raw {
        let (name, value) = field.unwrap();
        with_id.append(name, value);
    }
    Ok(with_id)
}

/// Applies an update statement to a document.
fn changed(old: &RawDocument, change: &RawDocument) -> Result<RawDocumentBuf, String> {
    let Some(Ok((first, value))) = change.iter().next() else { return with(old, change) };
    if !first.as_str().starts_with('$') {
        return with(old, change);
    }
    if first.as_str() != "$set" || change.iter().count() > 1 {
        return Err(format!("{} is not supported", first.as_str()));
    }
    let mut document = Document::try_from(old).unwrap();
    document.extend(Document::try_from(value.as_document().ok_or("$set needs a document")?).unwrap());
    Ok(RawDocumentBuf::try_from(&document).unwrap())
}

fn with(old: &RawDocument, replacement: &RawDocument) -> Result<RawDocumentBuf, String> {
    with_id(replacement, Some(&id_of(old))).map_err(|Refused(_, _, message)| message)
}

fn delete(world: &mut World, message: &Message, command: &Document) -> Outcome {
    refuse_retryable(command)?;
    let namespace = namespace(command, "delete")?;
    let mut n = 0;
    if let Some(collection) = world.collections.get_mut(&namespace) {
        for statement in message.documents("deletes") {
            let filter = Document::try_from(statement.get_document("q").map_err(|e| bad(e.to_string()))?).unwrap();
            n += collection.remove(&filter, statement.get_i32("limit").is_ok_and(|limit| limit == 1)).map_err(bad)?;
        }
    }
    Ok(reply(&doc! { "n": n, "ok": 1.0 }))
}

fn find(world: &mut World, command: &Document) -> Outcome {
    let namespace = namespace(command, "find")?;
    for name in ["sort", "projection", "skip"] {
        if command.contains_key(name) {
            return Err(bad(format!("{name} is not supported by this server")));
        }
    }
    let everything = Document::new();
    let filter = command.get_document("filter").unwrap_or(&everything);
    let found = world.collections.get(&namespace).map(|collection| collection.find(filter));
    let mut left = VecDeque::from(found.transpose().map_err(bad)?.unwrap_or_default());
    if let Some(limit) = number(command, "limit").filter(|limit| *limit > 0) {
        left.truncate(limit);
    }
    let batch: Vec<_> = left.drain(..number(command, "batchSize").unwrap_or(101).min(left.len())).collect();
    let single = command.get_bool("singleBatch").unwrap_or(false);
    let done = left.is_empty() || single;
    let id = if done { 0 } else { world.keep(Cursor::Documents { namespace: namespace.clone(), left }) };
    Ok(Answer::Reply(page(&namespace, id, true, batch)))
}

fn number(command: &Document, name: &str) -> Option<usize> {
    let number = command.get_i64(name).or_else(|_| command.get_i32(name).map(i64::from)).ok()?;
    usize::try_from(number).ok()
}

/// There is no postBatchResumeToken: the page's token is in its documents.
fn page((database, name): &(String, String), id: i64, first: bool, batch: Vec<RawDocumentBuf>) -> RawDocumentBuf {
    let batch = RawArrayBuf::from_iter(batch);
    let mut cursor = rawdoc! { "id": id, "ns": format!("{database}.{name}") };
    cursor.append(if first { bson::raw::cstr!("firstBatch") } else { bson::raw::cstr!("nextBatch") }, batch);
    rawdoc! { "cursor": cursor, "ok": 1.0 }
}

fn watch(world: &mut World, command: &Document) -> Outcome {
    let namespace = namespace(command, "aggregate")?;
    let pipeline = command.get_array("pipeline").map_err(|e| bad(e.to_string()))?;
    let asked = feed::insist(pipeline).map_err(bad)?;
    let collection = world.collections.get(&namespace).ok_or_else(|| missing(&namespace))?;
    let place = match &asked.token {
        Some(token) => Place::of_token(token, collection).map_err(bad)?,
        None => Place::begin(collection, asked.at),
    };
    let most = command.get_document("cursor").ok().and_then(|cursor| number(cursor, "batchSize"));
    let id = world.keep(Cursor::Feed { namespace, place });
    // Opening a stream does not wait for the first change.
    Ok(match feed_page(world, id, most, true)? {
        Answer::Wait(page) => Answer::Reply(page),
        answer => answer,
    })
}

fn get_more(world: &mut World, command: &Document) -> Outcome {
    let id = command.get_i64("getMore").map_err(|e| bad(e.to_string()))?;
    let most = number(command, "batchSize").filter(|most| *most > 0);
    match world.cursors.get_mut(&id) {
        None => Err(Refused(43, "CursorNotFound", format!("cursor id {id} not found"))),
        Some(Cursor::Feed { .. }) => feed_page(world, id, most, false),
        Some(Cursor::Documents { namespace, left }) => {
            let namespace = namespace.clone();
            let batch: Vec<_> = left.drain(..most.unwrap_or(1000).min(left.len())).collect();
            let done = left.is_empty();
            if done {
                world.cursors.remove(&id);
            }
            Ok(Answer::Reply(page(&namespace, if done { 0 } else { id }, false, batch)))
        }
    }
}

/// The next page of a change stream, or the fault in its place.
fn feed_page(world: &mut World, id: i64, most: Option<usize>, first: bool) -> Outcome {
    let Some(Cursor::Feed { namespace, place }) = world.cursors.get_mut(&id) else { unreachable!("it is a stream") };
    let namespace = namespace.clone();
    let Some(collection) = world.collections.get(&namespace).filter(|collection| collection.rid == place.rid) else {
        world.cursors.remove(&id);
        return Err(missing(&namespace));
    };
    if most == Some(0) {
        return Ok(Answer::Wait(page(&namespace, id, first, Vec::new())));
    }
    let fault = world.faults.pop_front();
    match fault {
        Some(PageFault::Throttled) => return Ok(Answer::Reply(page(&namespace, id, first, Vec::new()))),
        Some(PageFault::TooManyRequests) => {
            return Err(too_many_requests());
        }
        Some(PageFault::Cut) | None => {}
    }
    let most = most.unwrap_or(usize::MAX).min(world.page_size);
    let batch = place.page(collection, most, (&namespace.0, &namespace.1));
    let is_empty = batch.is_empty();
    let page = page(&namespace, id, first, batch);
    Ok(match fault {
        Some(_) => Answer::Cut(page),
        None if is_empty => Answer::Wait(page),
        None => Answer::Reply(page),
    })
}

fn kill_cursors(world: &mut World, command: &Document) -> Answer {
    let ids: Vec<i64> =
        command.get_array("cursors").map_or_else(|_| Vec::new(), |ids| ids.iter().filter_map(Bson::as_i64).collect());
    for id in &ids {
        world.cursors.remove(id);
    }
    let nothing: [i64; 0] = [];
    reply(&doc! {
        "cursorsKilled": ids, "cursorsNotFound": nothing.to_vec(), "cursorsAlive": nothing.to_vec(),
        "cursorsUnknown": nothing.to_vec(), "ok": 1.0,
    })
}

/// Handles the custom commands that the service adds to the protocol.
fn custom_action(world: &World, command: &Document) -> Outcome {
    let namespace = namespace(command, "collection")?;
    let collection = world.collections.get(&namespace).ok_or_else(|| missing(&namespace))?;
    match command.get_str("customAction").unwrap_or_default() {
        "GetCollection" => Ok(reply(&doc! {
            "database": &namespace.0, "collection": &namespace.1, "provisionedThroughput": 400,
            "shardKeyDefinition": { &collection.shard_key: "hash" }, "ok": 1,
        })),
        "GetChangeStreamTokens" => {
            let begin = Place::begin(collection, command.get_timestamp("startAtOperationTime").ok());
            let tokens: Vec<Document> = begin.apart().iter().map(|place| place.token(collection)).collect();
            Ok(reply(&doc! { "resumeAfterTokens": tokens, "ok": 1.0 }))
        }
        other => Err(bad(format!("customAction {other} is not supported"))),
    }
}

fn list_collections(world: &World, command: &Document) -> Answer {
    let database = command.get_str("$db").unwrap_or_default();
    let found = world.collections.keys().filter(|(of, _)| of == database);
    let batch = found.map(|(_, name)| rawdoc! { "name": name.as_str(), "type": "collection", "options": {} });
    Answer::Reply(page(&(database.to_owned(), "$cmd.listCollections".to_owned()), 0, true, batch.collect()))
}

fn list_databases(world: &World) -> Answer {
    let mut names: Vec<&String> = world.collections.keys().map(|(database, _)| database).collect();
    names.dedup();
    let databases: Vec<Document> = names.iter().map(|name| doc! { "name": *name, "empty": false }).collect();
    reply(&doc! { "databases": databases, "totalSize": 0_i64, "ok": 1.0 })
}

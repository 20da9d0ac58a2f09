//! Tests the small RU server with the driver: it is strict, and the current driver can talk to it.

use bson::{Document, RawDocumentBuf, Timestamp, doc};
use futures::TryStreamExt as _;
use mongodb::{Client, Collection, change_stream::event::ResumeToken, options::FullDocumentType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::mongo_ru::{MongoRu, PageFault};

/// The pipeline that the service requires.
fn insisted() -> Vec<Document> {
    vec![
        doc! { "$match": { "operationType": { "$in": ["insert", "update", "replace"] } } },
        doc! { "$project": { "_id": 1, "fullDocument": 1, "ns": 1, "documentKey": 1 } },
    ]
}

async fn orders(server: &MongoRu) -> Collection<Document> {
    Client::with_uri_str(server.uri()).await.unwrap().database("shop").collection("orders")
}

/// The server's error code.
fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

enum From {
    BigBang,
    Now,
    Token(ResumeToken),
}

type Stream = mongodb::change_stream::ChangeStream<RawDocumentBuf>;

async fn watch(orders: &Collection<Document>, from: From) -> Result<Stream, mongodb::error::Error> {
    let watch = orders.watch().pipeline(insisted()).full_document(FullDocumentType::UpdateLookup);
    let watch = match from {
        From::BigBang => watch.start_at_operation_time(Timestamp { time: 0, increment: 0 }),
        From::Now => watch,
        From::Token(token) => watch.resume_after(token),
    };
    Ok(watch.await?.with_type())
}

/// The `_id`s that arrive until several reads were empty. A single empty read is not enough: the driver's first one
/// only returns what the stream was opened with.
async fn ids(stream: &mut Stream) -> Vec<i32> {
    let (mut ids, mut empty) = (Vec::new(), 0);
    while empty < 4 {
        let Some(event) = stream.next_if_any().await.unwrap() else {
            empty += 1;
            continue;
        };
        let names: Vec<String> = event.iter().map(|field| field.unwrap().0.as_str().to_owned()).collect();
        assert_eq!(names, ["_id", "fullDocument", "ns", "documentKey"]);
        ids.push(event.get_document("fullDocument").unwrap().get_i32("_id").unwrap());
    }
    ids
}

#[tokio::test]
async fn the_server_finds_documents_by_id_and_by_their_whole_content() {
    let server = MongoRu::start().await;
    let orders = orders(&server).await;
    orders.insert_many((0..250).map(|n| doc! { "_id": n, "n": 1 })).await.unwrap();
    assert!(orders.insert_one(doc! { "_id": 1 }).await.is_err());
    let all: Vec<Document> = orders.find(doc! {}).batch_size(7).await.unwrap().try_collect().await.unwrap();
    assert_eq!(all.len(), 250);
    let same = |document: Document| doc! { "_id": 2, "$expr": { "$eq": ["$$ROOT", { "$literal": document }] } };
    let replaced = orders.replace_one(same(doc! { "_id": 2, "n": 1 }), doc! { "$x": 1, "n": 2 }).await;
    assert!(replaced.is_err(), "the driver refuses such a replacement: {replaced:?}");
    assert_eq!(orders.replace_one(same(doc! { "_id": 2, "n": 9 }), doc! { "n": 2 }).await.unwrap().matched_count, 0);
    assert_eq!(orders.replace_one(same(doc! { "_id": 2, "n": 1 }), doc! { "n": 2 }).await.unwrap().modified_count, 1);
    let set = orders.update_one(doc! { "_id": 2 }, doc! { "$set": { "m": 3 } }).await.unwrap();
    assert_eq!(set.modified_count, 1);
    assert_eq!(orders.find_one(doc! { "_id": 2 }).await.unwrap().unwrap(), doc! { "_id": 2, "n": 2, "m": 3 });
    let upserted = orders.replace_one(doc! { "_id": "new" }, doc! { "n": 1 }).upsert(true).await.unwrap();
    assert_eq!(upserted.upserted_id, Some("new".into()));
    assert_eq!(orders.delete_one(same(doc! { "_id": 2, "n": 2 })).await.unwrap().deleted_count, 0);
    assert_eq!(orders.delete_one(doc! { "_id": 2 }).await.unwrap().deleted_count, 1);
    assert!(orders.find_one(doc! { "_id": 2 }).await.unwrap().is_none());
}

#[tokio::test]
async fn the_server_accepts_only_one_pipeline_and_lookup() {
    let server = MongoRu::start().await;
    let orders = orders(&server).await;
    assert_eq!(code(&watch(&orders, From::BigBang).await.err().unwrap()), Some(26));
    server.create("shop", "orders", "customer", 1);
    assert!(watch(&orders, From::BigBang).await.is_ok());
    let looked_up = || orders.watch().full_document(FullDocumentType::UpdateLookup);
    assert_eq!(code(&looked_up().await.unwrap_err()), Some(2));
    assert_eq!(code(&orders.watch().pipeline(insisted()).await.unwrap_err()), Some(2));
    let mut more = insisted();
    more.push(doc! { "$match": { "fullDocument.n": 1 } });
    assert_eq!(code(&looked_up().pipeline(more).await.unwrap_err()), Some(2));
    let mut less = insisted();
    less[1] = doc! { "$project": { "_id": 1, "fullDocument": 1 } };
    assert_eq!(code(&looked_up().pipeline(less).await.unwrap_err()), Some(2));
    let expanded = looked_up().pipeline(insisted()).show_expanded_events(true);
    assert_eq!(code(&expanded.await.unwrap_err()), Some(2));
    let database = orders.client().database("shop");
    let whole = database.watch().pipeline(insisted()).full_document(FullDocumentType::UpdateLookup);
    assert_eq!(code(&whole.await.unwrap_err()), Some(2));
}

#[tokio::test]
async fn the_feed_has_newest_versions_and_no_deletes() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    let orders = orders(&server).await;
    let mut now = watch(&orders, From::Now).await.unwrap();
    for n in 1..=3 {
        server.put("shop", "orders", &doc! { "_id": n });
    }
    server.put("shop", "orders", &doc! { "_id": 1, "again": true });
    orders.delete_one(doc! { "_id": 2 }).await.unwrap();
    assert_eq!(ids(&mut now).await, [3, 1]);
    assert_eq!(ids(&mut watch(&orders, From::BigBang).await.unwrap()).await, [3, 1]);
    assert_eq!(ids(&mut now).await, Vec::<i32>::new());
    server.drop_collection("shop", "orders");
    assert_eq!(code(&now.next_if_any().await.unwrap_err()), Some(26));
}

/// This service's trap: the token of a page's first document skips the rest of the page.
#[tokio::test]
async fn the_token_of_every_document_of_a_page_stands_for_its_end() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    server.page_size(4);
    for n in 0..10 {
        server.put("shop", "orders", &doc! { "_id": n });
    }
    let orders = orders(&server).await;
    let mut stream = watch(&orders, From::BigBang).await.unwrap();
    let first = stream.next_if_any().await.unwrap().unwrap();
    let second = stream.next_if_any().await.unwrap().unwrap();
    assert_eq!(first.get("_id").unwrap(), second.get("_id").unwrap());
    let token = stream.resume_token().unwrap();
    assert_eq!(ids(&mut watch(&orders, From::Token(token)).await.unwrap()).await, (4..10).collect::<Vec<_>>());
    let id = Document::try_from(first).unwrap();
    let data = id.get_document("_id").unwrap();
    let text = String::from_utf8(data.get_binary_generic("_data").unwrap().clone()).unwrap();
    assert!(text.contains(r#""FeedRange":{"min":"","max":"FF"}"#), "{text}");
    assert!(text.contains(r#""State":"\"1004\"""#), "{text}");
    assert_eq!(data.get("_kind"), Some(&bson::Bson::Int32(1)));
}

#[tokio::test]
async fn throttled_pages_are_empty_and_a_page_that_breaks_off_is_repeated() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    for n in 0..3 {
        server.put("shop", "orders", &doc! { "_id": n });
    }
    let orders = orders(&server).await;
    server.fail_next(&[PageFault::Throttled; 2]);
    let mut stream = watch(&orders, From::BigBang).await.unwrap();
    for _ in 0..2 {
        assert!(stream.next_if_any().await.unwrap().is_none());
    }
    assert_eq!(server.faults_left(), 0);
    assert_eq!(ids(&mut stream).await, [0, 1, 2]);
    server.put("shop", "orders", &doc! { "_id": 3 });
    // The driver reopens the stream itself. Empty pages contain no token, so it has lost its position and starts at its
    // original starting point. A reader that started at "now" would lose the writes in between.
    server.fail_next(&[PageFault::Cut]);
    assert_eq!(ids(&mut stream).await, [0, 1, 2, 3]);
    server.fail_next(&[PageFault::TooManyRequests]);
    assert_eq!(code(&stream.next_if_any().await.unwrap_err()), Some(16500));
    assert_eq!(server.faults_left(), 0);
}

#[tokio::test]
async fn every_partition_has_its_own_token() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 2);
    for n in 0..40 {
        server.put("shop", "orders", &doc! { "_id": n, "customer": format!("c-{}", n % 7) });
    }
    let orders = orders(&server).await;
    let database = orders.client().database("shop");
    let definition = database.run_command(doc! { "customAction": "GetCollection", "collection": "orders" }).await;
    assert_eq!(definition.unwrap().get_document("shardKeyDefinition").unwrap(), &doc! { "customer": "hash" });
    let ask = doc! {
        "customAction": "GetChangeStreamTokens", "collection": "orders",
        "startAtOperationTime": Timestamp { time: 0, increment: 0 },
    };
    let answer = database.run_command(ask).await.unwrap();
    let mut all = Vec::new();
    for token in answer.get_array("resumeAfterTokens").unwrap() {
        let token = bson::deserialize_from_bson::<ResumeToken>(token.clone()).unwrap();
        let found = ids(&mut watch(&orders, From::Token(token)).await.unwrap()).await;
        assert!(!found.is_empty() && found.len() < 40, "{found:?}");
        all.extend(found);
    }
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    assert_eq!(ids(&mut watch(&orders, From::BigBang).await.unwrap()).await.len(), 40);
}

#[tokio::test]
async fn the_driver_refuses_a_server_that_is_too_old() {
    let server = MongoRu::of_wire_version(6).await;
    let uri = format!("{}&serverSelectionTimeoutMS=300", server.uri());
    let client = Client::with_uri_str(uri).await.unwrap();
    let error = client.database("shop").run_command(doc! { "ping": 1 }).await.unwrap_err();
    assert!(error.to_string().contains("wire version 6"), "{error}");
}

/// Other drivers greet with OP_QUERY, and may append a checksum to a message.
#[tokio::test]
async fn the_old_greeting_and_a_checksum_are_understood() {
    let server = MongoRu::start().await;
    let address = server.uri().split('/').nth(2).unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let message = |code: i32, parts: &[&[u8]]| {
        let content = parts.concat();
        let header = [i32::try_from(content.len() + 16).unwrap(), 7, 0, code].map(i32::to_le_bytes).concat();
        [header, content].concat()
    };
    let greeting = doc! { "isMaster": 1, "helloOk": true }.to_vec().unwrap();
    let skip_and_return = [0_i32, -1].map(i32::to_le_bytes).concat();
    stream.write_all(&message(2004, &[&[0; 4], b"admin.$cmd\0", &skip_and_return, &greeting])).await.unwrap();
    let (code, answer) = answer(&mut stream, 20).await;
    assert_eq!((code, answer.get_str("setName").unwrap()), (1, "globaldb"));
    let insert = doc! { "insert": "orders", "$db": "shop" }.to_vec().unwrap();
    let documents = [doc! { "_id": 1 }.to_vec().unwrap(), doc! { "_id": 2 }.to_vec().unwrap()].concat();
    let size = i32::try_from(4 + "documents\0".len() + documents.len()).unwrap().to_le_bytes();
    let sequence = [&[1], &size[..], b"documents\0", &documents].concat();
    let with_checksum = [&[1, 0, 0, 0, 0], &insert[..], &sequence, &[9; 4]].concat();
    stream.write_all(&message(2013, &[&with_checksum])).await.unwrap();
    let (code, answer) = self::answer(&mut stream, 5).await;
    assert_eq!((code, answer.get_i32("n").unwrap()), (2013, 2));
}

/// The operation and the document of the next reply; the document starts at this offset after the header.
async fn answer(stream: &mut tokio::net::TcpStream, begins: usize) -> (i32, Document) {
    let mut header = [0; 16];
    stream.read_exact(&mut header).await.unwrap();
    let number = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    assert_eq!(number(8), 7, "it replies to this request");
    let mut content = vec![0; usize::try_from(number(0)).unwrap() - 16];
    stream.read_exact(&mut content).await.unwrap();
    (number(12), Document::from_reader(&content[begins..]).unwrap())
}

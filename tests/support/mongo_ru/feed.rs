//! The change feed behind `$changeStream`: the newest versions by LSN, and the resume tokens that name a position in
//! it.

use bson::{Binary, Bson, Document, RawDocumentBuf, Timestamp, bson, doc, rawdoc, spec::BinarySubtype};
use serde_json::{Value, json};

use super::store::Collection;

/// A position in a collection's feed: one LSN for each feed range.
#[derive(Clone)]
pub struct Place {
    pub rid: String,
    ranges: Vec<(usize, u64)>,
}

impl Place {
    /// The position of a stream without a token: the beginning, a point in time, or now.
    pub fn begin(collection: &Collection, at: Option<Timestamp>) -> Self {
        let lsn = |partition: usize| {
            let partition = &collection.partitions[partition];
            at.map_or_else(|| partition.last(), |at| partition.before(at.time))
        };
        let ranges = (0..collection.partitions.len()).map(|partition| (partition, lsn(partition))).collect();
        Self { rid: collection.rid.clone(), ranges }
    }

    /// The same position, split into one position for each feed range.
    pub fn apart(&self) -> Vec<Self> {
        self.ranges.iter().map(|range| Self { rid: self.rid.clone(), ranges: vec![*range] }).collect()
    }

    /// Encodes the position as a resume token.
    pub fn token(&self, collection: &Collection) -> Document {
        let continuation: Vec<Value> = self
            .ranges
            .iter()
            .map(|(partition, lsn)| {
                let (min, max) = collection.range(*partition);
                json!({"FeedRange": {"min": min, "max": max}, "State": format!("\"{lsn}\"")})
            })
            .collect();
        let text = json!({"V": 1, "Rid": self.rid, "Continuation": continuation}).to_string();
        let data = Binary { subtype: BinarySubtype::Generic, bytes: text.into_bytes() };
        doc! { "_data": data, "_kind": 1 }
    }

    /// Decodes a resume token of this collection.
    pub fn of_token(token: &Document, collection: &Collection) -> Result<Self, String> {
        let wrong = |what: &str| format!("The resume token is not valid: {what}");
        if token.len() != 2 || token.get("_kind") != Some(&Bson::Int32(1)) {
            return Err(wrong("_data and _kind"));
        }
        let Ok(bytes) = token.get_binary_generic("_data") else { return Err(wrong("_data")) };
        let text: Value = serde_json::from_slice(bytes).map_err(|_| wrong("JSON"))?;
        if text["Rid"] != json!(collection.rid) {
            return Err(wrong("it is of another collection"));
        }
        let mut ranges = Vec::new();
        for part in text["Continuation"].as_array().ok_or_else(|| wrong("Continuation"))? {
            let range = &part["FeedRange"];
            let partition = (0..collection.partitions.len()).find(|partition| {
                let (min, max) = collection.range(*partition);
                range["min"] == json!(min) && range["max"] == json!(max)
            });
            let lsn = part["State"].as_str().and_then(|state| state.trim_matches('"').parse().ok());
            ranges.push((partition.ok_or_else(|| wrong("FeedRange"))?, lsn.ok_or_else(|| wrong("State"))?));
        }
        Ok(Self { rid: collection.rid.clone(), ranges })
    }

    /// The next page: at most `most` documents of one feed range. The position moves behind the whole page, and every
    /// document of the page carries that token, so a reader that resumes after the first document misses the others.
    pub fn page(&mut self, collection: &Collection, most: usize, namespace: (&str, &str)) -> Vec<RawDocumentBuf> {
        for at in 0..self.ranges.len() {
            let (partition, lsn) = self.ranges[at];
            let partition = &collection.partitions[partition];
            let mut newer: Vec<_> = partition.documents.iter().filter(|stored| stored.lsn > lsn).collect();
            newer.sort_by_key(|stored| stored.lsn);
            newer.truncate(most);
            let Some(last) = newer.last() else { continue };
            self.ranges[at].1 = last.lsn;
            let token = RawDocumentBuf::try_from(&self.token(collection)).unwrap();
            return newer
                .iter()
                .map(|stored| {
                    rawdoc! {
                        "_id": token.clone(),
                        "fullDocument": stored.raw.clone(),
                        "ns": { "db": namespace.0, "coll": namespace.1 },
                        "documentKey": collection.document_key(&stored.raw),
                    }
                })
                .collect();
        }
        Vec::new()
    }
}

/// The parameters of a stream whose pipeline the service accepts.
pub struct Asked {
    pub token: Option<Document>,
    pub at: Option<Timestamp>,
}

/// Accepts only the one pipeline and the options that the service knows.
pub fn insist(pipeline: &[Bson]) -> Result<Asked, String> {
    let insisted = [
        bson!({ "$match": { "operationType": { "$in": ["insert", "update", "replace"] } } }),
        bson!({ "$project": { "_id": 1, "fullDocument": 1, "ns": 1, "documentKey": 1 } }),
    ];
    let [first, rest @ ..] = pipeline else { return Err("The pipeline is empty".into()) };
    let Some(options) = first.as_document().and_then(|stage| stage.get_document("$changeStream").ok()) else {
        return Err("Only $changeStream is supported by this server".into());
    };
    if rest != insisted {
        return Err("Change stream must be followed by a match and then a project stage".into());
    }
    if options.get("fullDocument") != Some(&Bson::from("updateLookup")) {
        return Err("Change stream must have fullDocument: updateLookup".into());
    }
    for name in options.keys() {
        if !["fullDocument", "resumeAfter", "startAfter", "startAtOperationTime"].contains(&name.as_str()) {
            return Err(format!("BSON field '$changeStream.{name}' is not supported"));
        }
    }
    let token = options.get_document("resumeAfter").or_else(|_| options.get_document("startAfter")).ok().cloned();
    Ok(Asked { token, at: options.get_timestamp("startAtOperationTime").ok() })
}

//! Reads a live container of Cosmos DB.

use futures::FutureExt as _;

use super::{
    pages::{first_row, rows_in},
    reader::end,
    row::{QueryRow, key_columns},
};
use crate::{
    change::{
        key::{ItemKey, KeyPaths, PartitionKey},
        raw::{RawDocument, string_of},
    },
    cosmos::{Answer, Container, Failure, FeedRange, HashRange, PageStream, Param},
    history::{
        live::Live,
        reading::{AxisEnd, LiveContainer},
    },
};

const NEWEST: &str = "SELECT TOP 1 c._ts AS ts, c._rid AS rid FROM c ORDER BY c._ts DESC";

impl LiveContainer for Container {
    fn documents_in<'a>(
        &'a self,
        range: HashRange,
        with_text: bool,
        matching: Option<(&'a str, &'a [Param])>,
    ) -> PageStream<'a, (ItemKey, Live)> {
        let mut sql = if with_text { "SELECT * FROM c".to_owned() } else { select(self.key_paths()) };
        if let Some((predicate, _)) = matching {
            // On lines of its own, so that a comment in it cannot swallow the parenthesis.
            sql.push_str(&format!(" WHERE (\n{predicate}\n)"));
        }
        let params = matching.map_or_else(Vec::new, |(_, params)| params.to_vec());
        rows_in(self, sql, params, range, move |row| {
            if with_text { document(row.get(), self.key_paths()) } else { facts(row.get(), self.key_paths()) }
        })
    }

    fn default_ttl(&self) -> Answer<'_, Option<i64>> {
        Self::default_ttl(self).boxed()
    }

    fn newest(&self) -> Answer<'_, Option<AxisEnd>> {
        first_row(self, NEWEST, Vec::new(), end)
    }

    fn range_of(&self, key: &PartitionKey) -> Result<FeedRange, Failure> {
        Self::range_of(self, key)
    }
}

/// Which documents there are, with their etags.
fn select(paths: &KeyPaths) -> String {
    let keys = key_columns(paths.segments().iter().cloned());
    format!("SELECT c.id, c._etag AS etag, c._ts AS copied{keys} FROM c")
}

fn facts(text: &str, paths: &KeyPaths) -> Result<(ItemKey, Live), Failure> {
    let row: QueryRow<'_> = serde_json::from_str(text).map_err(|e| not_understood(&e.to_string()))?;
    let partition_key = row.key(paths.len());
    let live = Live { etag: row.etag.and_then(string_of).unwrap_or_default(), ts: row.copied, text: None };
    Ok((ItemKey { id: row.id.and_then(string_of).unwrap_or_default(), partition_key }, live))
}

fn document(text: &str, paths: &KeyPaths) -> Result<(ItemKey, Live), Failure> {
    let document = RawDocument::parse(text).map_err(|e| not_understood(&e.to_string()))?;
    let id = document.get_str("id").ok_or_else(|| not_understood("it has no id"))?.into_owned();
    let etag = document.get_str("_etag").map(std::borrow::Cow::into_owned).unwrap_or_default();
    let live = Live { etag, ts: document.get_i64("_ts"), text: Some(text.to_owned()) };
    Ok((ItemKey { id, partition_key: paths.extract(&document) }, live))
}

fn not_understood(problem: &str) -> Failure {
    Failure::invalid("read target".into(), format!("a document is not understood: {problem}"))
}

//! A page of a feed: what the service sent, or what this program read from another source.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Failure;
use crate::change::streamed::{BufferContent, ChangeBuffer, Streamed};

/// One page of the feed.
#[derive(Debug, Default)]
pub struct FeedPage {
    content: Content,
    /// Request units charged for it.
    pub charge: f64,
    /// The LSN that the physical partition had reached when it answered, if it says.
    pub partition_lsn: Option<i64>,
}

#[derive(Debug)]
enum Content {
    /// The service's answer.
    Body(String),
    /// Changes of another source, in parts.
    ChangeBuffer(ChangeBuffer),
}

impl Default for Content {
    fn default() -> Self {
        Self::Body(String::new())
    }
}

/// One change of a page.
#[derive(Debug, Clone)]
pub enum FeedItem<'p> {
    /// Its text: an envelope of `current`, `previous` and `metadata`, in both modes.
    Item(Cow<'p, RawValue>),
    /// Its parts.
    Change(Streamed<&'p str>),
}

impl<'p> FeedItem<'p> {
    /// The text.
    ///
    /// # Errors
    /// Never seen: texts are made of JSON.
    pub fn whole(self) -> Result<Cow<'p, RawValue>, Failure> {
        let change = match self {
            Self::Item(item) => return Ok(item),
            Self::Change(change) => change,
        };
        let mut text = String::new();
        change.push_item(&mut text);
        RawValue::from_string(text).map(Cow::Owned).map_err(|e| not_understood(&e))
    }
}

impl FeedPage {
    /// A page from the body that the service sent.
    pub(super) fn of_body(body: String, charge: f64, partition_lsn: Option<i64>) -> Self {
        Self { content: Content::Body(body), charge, partition_lsn }
    }

    /// Changes of another source.
    pub fn of_sheet(sheet: ChangeBuffer) -> Self {
        Self { content: Content::ChangeBuffer(sheet), ..Self::default() }
    }

    /// The changes, in their order.
    ///
    /// # Errors
    /// When the service sent something else.
    pub fn changes(&self) -> Result<Vec<FeedItem<'_>>, Failure> {
        #[derive(Deserialize)]
        struct Body<'a> {
            #[serde(borrow, rename = "Documents")]
            documents: Vec<&'a RawValue>,
        }
        let item = |item| FeedItem::Item(Cow::Borrowed(item));
        match &self.content {
            Content::Body(body) if body.is_empty() => Ok(Vec::new()),
            Content::Body(body) => serde_json::from_str::<Body<'_>>(body)
                .map(|body| body.documents.into_iter().map(item).collect())
                .map_err(|e| not_understood(&e)),
            Content::ChangeBuffer(sheet) => sheet
                .entries()
                .map(|entry| match entry {
                    BufferContent::Item(text) => serde_json::from_str(text).map(item).map_err(|e| not_understood(&e)),
                    BufferContent::Change(change) => Ok(FeedItem::Change(change)),
                })
                .collect(),
        }
    }

    /// The texts of the changes.
    ///
    /// # Errors
    /// When the service sent something else.
    pub fn items(&self) -> Result<Vec<Cow<'_, RawValue>>, Failure> {
        self.changes()?.into_iter().map(FeedItem::whole).collect()
    }

    /// Size of the page's text in bytes.
    pub fn bytes(&self) -> usize {
        match &self.content {
            Content::Body(body) => body.len(),
            Content::ChangeBuffer(sheet) => sheet.bytes(),
        }
    }
}

fn not_understood(e: &serde_json::Error) -> Failure {
    Failure::invalid("read change feed".into(), format!("the page is not understood: {e}"))
}

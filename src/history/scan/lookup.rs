//! Items looked up one by one.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{CONCURRENCY, MAX_PIECE_BYTES, Scan, ScannedItem};
use crate::{
    change::{
        key::{ItemKey, PartitionKey},
        version::BadRecord,
    },
    cosmos::{Failure, RuLimiter},
    history::{
        containers::Containers,
        histories::{TextDetail, histories},
        live::{LiveDetail, assumed, look_at},
    },
};

impl Scan<'_> {
    pub(super) async fn looked_up(&self, items: Vec<ItemKey>) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
        self.looked_up_if(items, |_| true).await
    }

    /// Looks items up one by one; reads live documents only of those that are wanted.
    pub(super) async fn looked_up_if(
        &self,
        items: impl IntoIterator<Item = ItemKey, IntoIter: ExactSizeIterator>,
        wanted: impl Fn(&ScannedItem) -> bool,
    ) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
        let wanted = &wanted;
        let items = items.into_iter();
        let texts = self.texts_of_each(items.len());
        let found: Vec<(Option<ScannedItem>, Vec<BadRecord>)> = stream::iter(items)
            .map(|item| async move {
                let (mut found, bad) = self.versions_of(item, texts).await?;
                if !wanted(&found) {
                    return Ok((None, bad));
                }
                self.look_at_live(&mut found).await?;
                Ok::<_, Failure>((Some(found), bad))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        let (found, bad): (Vec<Option<ScannedItem>>, Vec<Vec<BadRecord>>) = found.into_iter().unzip();
        Ok((found.into_iter().flatten().collect(), bad.into_iter().flatten().collect()))
    }

    /// How much is read for each of this many items: together they may not exceed a piece.
    pub(super) fn texts_of_each(&self, items: usize) -> TextDetail {
        if self.has_all_texts() { TextDetail::UpTo(MAX_PIECE_BYTES / items.max(1)) } else { TextDetail::None }
    }

    /// Adds what the target has, if that is requested.
    pub(super) async fn look_at_live(&self, found: &mut ScannedItem) -> Result<(), Failure> {
        if self.live != LiveDetail::No {
            let with_text = self.live == LiveDetail::Text;
            let assumed = assumed(&found.versions);
            found.live = look_at(&*self.containers.target, self.pace, &found.item, assumed, with_text).await?;
        }
        Ok(())
    }

    /// All versions of one item.
    pub(super) async fn versions_of(
        &self,
        item: ItemKey,
        texts: TextDetail,
    ) -> Result<(ScannedItem, Vec<BadRecord>), Failure> {
        let (found, bad) = self.item_of(item, texts).await?;
        if bad.is_empty() || texts == TextDetail::None {
            return Ok((found, bad));
        }
        // One whose document cannot be read is still a version.
        let (mut facts, _) = self.item_of(found.item, TextDetail::None).await?;
        let mut texts: HashMap<String, String> =
            found.versions.into_iter().filter_map(|version| Some((version.record_id, version.document?))).collect();
        for version in &mut facts.versions {
            version.document = texts.remove(&version.record_id);
        }
        Ok((facts, bad))
    }

    async fn item_of(&self, item: ItemKey, texts: TextDetail) -> Result<(ScannedItem, Vec<BadRecord>), Failure> {
        let key = Some(&item.partition_key);
        let (mut items, bad) = items_of_id(self.containers, self.pace, &item.id, key, texts).await?;
        let at = items.iter().position(|found| found.item == item);
        Ok((at.map_or_else(|| ScannedItem::new(item), |at| items.swap_remove(at)), bad))
    }
}

/// Looks up the versions of the documents with an id, without texts; with a key, or its first components, only of
/// those under it.
///
/// # Errors
/// When the service refuses.
pub async fn facts_of_id(
    containers: &Containers,
    pace: &RuLimiter,
    id: &str,
    key: Option<&PartitionKey>,
) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
    items_of_id(containers, pace, id, key, TextDetail::None).await
}

async fn items_of_id(
    containers: &Containers,
    pace: &RuLimiter,
    id: &str,
    key: Option<&PartitionKey>,
    texts: TextDetail,
) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
    let read = histories(&*containers.changes, pace, id, key, texts).await?;
    let mut found: Vec<ScannedItem> = read
        .items
        .into_iter()
        .map(|item| ScannedItem {
            versions: item.versions,
            unkeyed: item.unkeyed,
            copies: item.copies,
            ..ScannedItem::new(item.key)
        })
        .collect();
    found.sort_by_cached_key(|f| f.item.sort_key());
    Ok((found, read.bad))
}

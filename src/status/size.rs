//! Determines the size of a container: items are counted, bytes estimated from some of them.

use crate::cosmos::{Container, Failure, HashRange, Page};

/// The size of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Size {
    /// Items.
    pub items: u64,
    /// Of these: read completely, to learn their length.
    pub weighed: u64,
    /// Their bytes of JSON text.
    pub bytes: u64,
}

impl Size {
    /// The bytes of all items, assuming that the weighed ones are typical.
    pub fn estimate(&self) -> u64 {
        let average = if self.weighed == 0 { 0.0 } else { self.bytes as f64 / self.weighed as f64 };
        (average * self.items as f64).round() as u64
    }
}

/// How many items are weighed at a time, and in how many parts of the container.
const WEIGHED: u32 = 100;
const PARTS: u32 = 4;

/// Counts a container page by page, and weighs some items of several parts; `each` is told of every page.
///
/// # Errors
/// When it cannot be read.
pub async fn size(container: &Container, mut each: impl AsyncFnMut(u64)) -> Result<Size, Failure> {
    let mut size = Size::default();
    let mut pages = container.query("SELECT VALUE 1 FROM c", &[], None, None).await?;
    while let Some(page) = pages.next().await {
        let count = page?.documents.len() as u64;
        size.items += count;
        each(count).await;
    }
    let parts = if container.hash_space().is_some() { HashRange::WHOLE.cut(PARTS) } else { vec![HashRange::WHOLE] };
    for part in parts {
        let sql = format!("SELECT TOP {WEIGHED} * FROM c");
        let mut pages = container.query_hash_range(&sql, &[], part).await?;
        if let Some(Page { documents, .. }) = pages.next().await.transpose()? {
            size.weighed += documents.len() as u64;
            size.bytes += documents.iter().map(|d| d.get().len() as u64).sum::<u64>();
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_estimated_from_what_was_weighed() {
        assert_eq!(Size { items: 1000, weighed: 10, bytes: 2500 }.estimate(), 250_000);
        assert_eq!(Size::default().estimate(), 0);
    }
}

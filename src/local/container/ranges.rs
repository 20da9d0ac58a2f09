//! A container's physical partitions, and how they are split and merged.

use std::sync::PoisonError;

use axum::http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{LocalContainer, write::invalid};
use crate::local::{
    keys::{Epk, EpkRange},
    message::{Ask, GatewayAnswer, header},
};

/// A physical partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local) struct PhysicalRange {
    pub id: String,
    pub range: EpkRange,
}

/// A request named a range that does not exist.
#[derive(Debug)]
pub(in crate::local) enum RangeError {
    /// The range was split or merged away.
    Gone,
    Invalid(String),
}

#[derive(Deserialize)]
struct RangeList {
    #[serde(rename = "PartitionKeyRanges")]
    pub(super) ranges: Vec<RangeDescription>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeDescription {
    pub(super) id: String,
    min_inclusive: String,
    max_exclusive: String,
}

impl LocalContainer {
    /// Returns the physical partitions in key order.
    pub fn ranges(&self) -> Vec<PhysicalRange> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn reload_ranges(&self) -> Result<(), GatewayAnswer> {
        let answer = self.emulator.execute(&Ask::new(Method::GET, format!("{}/pkranges", self.name.path()))).await;
        let list: RangeList = serde_json::from_slice(&answer.body).map_err(|_| answer)?;
        let mut ranges: Vec<PhysicalRange> = list
            .ranges
            .into_iter()
            .filter_map(|found| {
                let range = EpkRange { min: Epk::parse(&found.min_inclusive)?, max: Epk::parse(&found.max_exclusive)? };
                Some(PhysicalRange { id: found.id, range })
            })
            .collect();
        ranges.sort_by(|left, right| left.range.min.cmp(&right.range.min));
        *self.ranges.write().unwrap_or_else(PoisonError::into_inner) = ranges;
        Ok(())
    }

    /// Runs a split or merge and reads the partitions again. Single writes continue and may get 410 meanwhile, as from
    /// the service.
    pub async fn reshape<T>(&self, work: impl Future<Output = T>) -> Result<T, GatewayAnswer> {
        let _alone = self.reshaping.write().await;
        let done = work.await;
        self.reload_ranges().await?;
        Ok(done)
    }

    /// Returns a guard that keeps splits from starting; `None` while one is running.
    pub fn hold_shape(&self) -> Option<tokio::sync::RwLockReadGuard<'_, ()>> {
        self.reshaping.try_read().ok()
    }

    /// Returns the range to which the partition key, partition key range and EPK headers restrict a request.
    pub fn range_of(&self, ask: &Ask) -> Result<EpkRange, RangeError> {
        let mut range = EpkRange::full();
        if let Some(id) = ask.headers.get(header::RANGE_ID) {
            // Some clients send `<container rid>,<id>`.
            let id = id.rsplit(',').next().unwrap_or(id).trim();
            let found = self.ranges().into_iter().find(|range| range.id == id);
            range = found.ok_or(RangeError::Gone)?.range;
        }
        if let Some(text) = ask.headers.get(header::START_EPK) {
            let min = Epk::parse(text).ok_or_else(|| invalid(header::START_EPK, text))?;
            range.min = range.min.max(min);
        }
        if let Some(text) = ask.headers.get(header::END_EPK) {
            let max = Epk::parse(text).ok_or_else(|| invalid(header::END_EPK, text))?;
            range.max = range.max.min(max);
        }
        if let Some(text) = ask.headers.get(header::PARTITION_KEY) {
            let values: Vec<Value> = serde_json::from_str(text).map_err(|_| invalid(header::PARTITION_KEY, text))?;
            if values.is_empty() && self.partitioning.paths.len() > 1 {
                return Err(invalid(header::PARTITION_KEY, text));
            }
            if !values.is_empty() {
                let key = self.partitioning.range_of(&values).ok_or_else(|| invalid(header::PARTITION_KEY, text))?;
                if key.min == key.max {
                    return Ok(key);
                }
                range = EpkRange { min: range.min.max(key.min), max: range.max.min(key.max) };
            }
        }
        if range.min > range.max {
            return Err(RangeError::Invalid("the requested key ranges do not overlap".into()));
        }
        Ok(range)
    }
}

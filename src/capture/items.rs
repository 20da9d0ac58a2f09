//! Decodes a payload's items into changes, after removing what must not be kept.

use serde_json::value::RawValue;

use crate::{
    change::{
        Change,
        decode::{NotAChange, decode},
        fidelity::Delivery,
        record::{self, Unrecordable},
        shape::Redactor,
    },
    cosmos::{Failure, Status},
};

/// An item that can never be stored as it is.
pub(super) struct Poison {
    pub(super) item: usize,
    /// The part of the item that is kept, when that is not all of it and is known.
    pub(super) shaped: Option<Box<RawValue>>,
    pub(super) id: Option<String>,
    pub(super) why: NotStorable,
}

/// Why an item can never be stored as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotStorable {
    /// It is no change.
    #[error(transparent)]
    NotAChange(#[from] NotAChange),
    /// Fields that must not be kept cannot be removed from it.
    #[error(transparent)]
    Shape(#[from] serde_json::Error),
    /// No record can be made of it.
    #[error(transparent)]
    Unrecordable(#[from] Unrecordable),
    /// The service refused its record.
    #[error(transparent)]
    Refused(Failure),
}

impl Poison {
    pub(super) fn new(item: usize, why: impl Into<NotStorable>) -> Self {
        Self { item, shaped: None, id: None, why: why.into() }
    }

    /// The service's answer.
    pub(super) fn status(&self) -> Status {
        if let NotStorable::Refused(failure) = &self.why { failure.status } else { Status::NOT_SENT }
    }

    /// Whether the service's reason may lie in the container.
    pub(super) fn may_be_the_containers(&self) -> bool {
        self.containers_refusal().is_some()
    }

    /// The service's refusal, when its reason may lie in the container: not when the record is too large (413) or its
    /// logical partition is full (403/1014).
    pub(super) fn containers_refusal(&self) -> Option<&Failure> {
        let NotStorable::Refused(failure) = &self.why else { return None };
        (failure.status.is_bad_request() || failure.status.is_not_implemented()).then_some(failure)
    }
}

/// An item after the shape was applied.
pub(super) struct Shaped {
    pub(super) item: Box<RawValue>,
    /// For each of its changes: whether the host may have altered what is kept of it, or what was hashed.
    altered: Vec<bool>,
}

/// Applies the shape to every item; `None` for one that is not a change: its letter holds it as it was delivered.
pub(super) fn shape_all(
    items: &[&RawValue],
    shape: &Redactor,
    delivery: Delivery,
    poison: &mut Vec<Poison>,
) -> Vec<Option<Shaped>> {
    let shaped = items.iter().enumerate().map(|(index, item)| match shape_one(item, shape, delivery) {
        Ok(shaped) => Some(shaped),
        Err(why) => {
            poison.push(Poison::new(index, why));
            None
        }
    });
    shaped.collect()
}

fn shape_one(item: &RawValue, shape: &Redactor, delivery: Delivery) -> Result<Shaped, NotStorable> {
    let altered = |item: &RawValue| -> Result<Vec<bool>, NotAChange> {
        let mut changes = Vec::with_capacity(2);
        decode(item, &mut changes)?;
        Ok(changes.iter().map(|change| record::may_be_altered(change, delivery)).collect())
    };
    let whole = altered(item)?;
    let shaped = shape.apply(item)?;
    // The hash was made from the text that was delivered, which may hold a rewritten date.
    let altered = if shape.hashes() { whole } else { altered(&shaped)? };
    Ok(Shaped { item: shaped, altered })
}

/// The changes of a batch.
pub(super) struct DecodedBatch<'a> {
    pub(super) changes: Vec<Change<'a>>,
    /// The index of each change's item.
    pub(super) origins: Vec<usize>,
    /// Whether the host may have altered it; empty when that was not examined yet.
    altered: Vec<bool>,
}

impl<'a> DecodedBatch<'a> {
    /// Decodes items; those that are not changes are poison.
    pub(super) fn of(items: &[&'a RawValue], poison: &mut Vec<Poison>) -> Self {
        let mut taken = Self::with_room(items.len());
        for (index, item) in items.iter().enumerate() {
            taken.add(index, item, poison);
        }
        taken
    }

    /// Decodes what the shape left of the items.
    pub(super) fn of_shaped(items: &'a [Option<Shaped>], poison: &mut Vec<Poison>) -> Self {
        let mut taken = Self::with_room(items.len());
        for (index, one) in items.iter().enumerate() {
            let Some(one) = one else { continue };
            taken.add(index, &one.item, poison);
            // The shape does not change the number of changes in an item: ids and etags are always kept.
            let of_it = (taken.altered.len()..taken.changes.len()).enumerate();
            taken.altered.extend(of_it.map(|(i, _)| one.altered.get(i).copied().unwrap_or(true)));
        }
        taken
    }

    fn with_room(items: usize) -> Self {
        Self { changes: Vec::with_capacity(items), origins: Vec::with_capacity(items), altered: Vec::new() }
    }

    fn add(&mut self, index: usize, item: &'a RawValue, poison: &mut Vec<Poison>) {
        let own = self.origins.len();
        let decoded = decode(item, &mut self.changes);
        // An image without a time is only for expressions: it is not known which version it was. It precedes its
        // change.
        if self.changes.get(own).is_some_and(Change::is_image_alone) {
            self.changes.remove(own);
        }
        if let Err(e) = decoded {
            // Nothing of a partly decoded item is stored: its letter holds all of it.
            self.changes.truncate(own);
            poison.push(Poison::new(index, e));
        }
        self.origins.resize(self.changes.len(), index);
    }

    /// Whether the host may have altered a change's document.
    pub(super) fn may_be_altered(&self, index: usize, delivery: Delivery) -> bool {
        self.altered.get(index).copied().unwrap_or_else(|| record::may_be_altered(&self.changes[index], delivery))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::{KeyPaths, parse_path};

    fn shape(fields: &[&str], redactions: &[&str]) -> Redactor {
        let fields: Vec<_> = fields.iter().map(|path| parse_path(path).unwrap()).collect();
        let redactions: Vec<_> = redactions.iter().map(|text| text.parse().unwrap()).collect();
        let key = Some(crate::config::Secret::new("key"));
        Redactor::new(&fields, &redactions, &KeyPaths::parse(&["/pk"]).unwrap(), key).unwrap().unwrap()
    }

    #[test]
    fn a_date_that_is_not_kept_needs_no_second_look_but_one_that_is_hashed_does() {
        const ITEM: &str = r#"{"id":"x","pk":"p","when":"2020-01-01T00:00:00.1Z","n":1,"_etag":"\"1\"","_ts":1}"#;
        let item: &RawValue = serde_json::from_str(ITEM).unwrap();
        let altered = |shape: &Redactor| {
            let mut poison = Vec::new();
            let shaped = shape_all(&[item], shape, Delivery::DatesRewritten, &mut poison);
            let taken = DecodedBatch::of_shaped(&shaped, &mut poison);
            assert!(poison.is_empty() && taken.changes.len() == 1);
            taken.may_be_altered(0, Delivery::DatesRewritten)
        };
        assert!(DecodedBatch::of(&[item], &mut Vec::new()).may_be_altered(0, Delivery::DatesRewritten));
        assert!(!altered(&shape(&[], &["/when"])));
        assert!(!altered(&shape(&["/n"], &[])));
        assert!(altered(&shape(&[], &["/when=hash"])));
        assert!(altered(&shape(&["/when"], &[])));
    }

    #[test]
    fn what_is_no_change_stays_as_it_was_delivered() {
        let items: Vec<&RawValue> = [r#"{"no":"id"}"#, "7", r#"{"id":"x","pk":"p","a":1}"#]
            .into_iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        let mut poison = Vec::new();
        let shaped = shape_all(&items, &shape(&[], &["/a"]), Delivery::Direct, &mut poison);
        assert_eq!(poison.iter().map(|p| p.item).collect::<Vec<_>>(), [0, 1]);
        assert!(shaped[0].is_none() && shaped[1].is_none());
        let taken = DecodedBatch::of_shaped(&shaped, &mut poison);
        assert_eq!(
            (taken.origins.as_slice(), taken.changes[0].text, poison.len()),
            (&[2][..], r#"{"id":"x","pk":"p"}"#, 2)
        );
    }
}

//! The oldest and the newest entry of a container, and whether they belong to an earlier container of the same name.

use super::{Containers, reading::WhichEnd};
use crate::{change::version::container_of, cosmos::Failure};

/// Whether a document with this resource id belongs to another container than the one with this id: an earlier one of
/// the same name. `None` when an id is malformed.
pub fn is_of_another(document: &str, container: &str) -> Option<bool> {
    Some(container_of(document)? != container_of(container)?)
}

/// Whether an end of the history belongs to an earlier container of the source's name.
///
/// # Errors
/// When the service refuses.
pub async fn from_previous_container(containers: &Containers, which: WhichEnd) -> Result<bool, Failure> {
    let end = containers.changes.end(which).await?;
    Ok(end.and_then(|end| is_of_another(end.rid.as_deref()?, containers.source.rid())).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_container_that_was_made_again_is_told_apart() {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes).replace('/', "-");
        let container = encode(&[0xe3, 0xb5, 0x1e, 0, 0xff, 0xff, 0xff, 0x4e]);
        let document = encode(&[0xe3, 0xb5, 0x1e, 0, 0xff, 0xff, 0xff, 0x4e, 9, 0, 0, 0, 0, 0, 0, 0]);
        let other = encode(&[0xe3, 0xb5, 0x1e, 0, 0xff, 0xff, 0xff, 0x4f, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(is_of_another(&document, &container), Some(false));
        assert_eq!(is_of_another(&other, &container), Some(true));
        for bad in ["", "rid-a", "AAAA"] {
            assert_eq!(is_of_another(bad, &container), None, "{bad}");
        }
        assert_eq!(is_of_another(&document, "x"), None);
    }
}

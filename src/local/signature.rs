//! Checks the signature of requests for the account's description, which every client reads first. Other requests are
//! not checked, because the account can only be reached from this machine. A client with a wrong key, or none, fails
//! here instead of later in Azure.

use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

use super::message::Ask;
use crate::config::EMULATOR_KEY;

/// Whether the request is signed with the account's key, or has another kind of token.
pub(super) fn allows(ask: &Ask) -> bool {
    let Some(token) = ask.headers.get("authorization") else { return false };
    let token = percent_decode_str(token).decode_utf8_lossy().into_owned();
    let part = |name: &str| token.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    if part("type") != Some("master") {
        return true;
    }
    let date = ask.headers.get("x-ms-date").or_else(|| ask.headers.get("date")).unwrap_or_default();
    let text = format!("get\n\n\n{}\n\n", date.to_ascii_lowercase());
    let base64 = base64::engine::general_purpose::STANDARD;
    let Some(mut mac) = base64.decode(EMULATOR_KEY).ok().and_then(|key| Hmac::<Sha256>::new_from_slice(&key).ok())
    else {
        return true;
    };
    mac.update(text.as_bytes());
    let signature = part("sig").and_then(|signature| base64.decode(signature).ok()).unwrap_or_default();
    mac.verify_slice(&signature).is_ok()
}

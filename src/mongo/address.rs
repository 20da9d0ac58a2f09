//! The address of a MongoDB deployment, which holds credentials and never shows them.

use std::fmt;

use crate::{config::is_mongo_address, secret::Secret};

/// `mongodb://…` or `mongodb+srv://…`. Displayed as scheme and hosts.
#[derive(Clone)]
pub struct Address {
    uri: Secret,
    shown: String,
    hidden: Vec<Secret>,
}

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a MongoDB address: write mongodb://HOST[:PORT]/ or mongodb+srv://HOST/")]
pub struct NotAnAddress;

/// Why the driver rejects an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotUnderstood(String);

impl Address {
    /// Parses an address. The driver checks its options when it connects.
    ///
    /// # Errors
    /// When it has another scheme, or no host.
    pub fn parse(text: &str) -> Result<Self, NotAnAddress> {
        let (scheme, rest) = text.split_once("://").filter(|_| is_mongo_address(text)).ok_or(NotAnAddress)?;
        let (authority, tail) = rest.split_once(['/', '?']).unwrap_or((rest, ""));
        let (user_info, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        // A user and a password without a host look like a host and a port.
        if hosts.is_empty() || !hosts.split(',').all(has_port_or_none) {
            return Err(NotAnAddress);
        }
        // A password that is not encoded may contain a slash: then the end of the address is unknown, and nothing after
        // it is shown.
        if tail.contains('@') {
            return Err(NotAnAddress);
        }
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let password = user_info.split_once(':').map_or("", |(_, password)| password);
        let hidden = [password.to_owned(), decoded(password)];
        Ok(Self {
            uri: Secret::new(text),
            shown: format!("{scheme}://{hosts}"),
            hidden: hidden.into_iter().filter(|text| !text.is_empty()).map(Secret::new).collect(),
        })
    }

    /// Checks that the driver accepts all of it; contacts nobody.
    ///
    /// # Errors
    /// With the driver's reason, without any secret.
    pub fn check(&self) -> Result<(), NotUnderstood> {
        let understood = mongodb::options::ConnectionString::parse(self.uri());
        understood.map(drop).map_err(|e| NotUnderstood(self.without_secrets(&e.kind.to_string())))
    }

    /// The whole text, for the driver alone.
    pub(super) fn uri(&self) -> &str {
        self.uri.expose()
    }

    /// Scheme and hosts.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Hosts with their ports, as they are written.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.shown.split_once("://").map_or("", |(_, hosts)| hosts).split(',')
    }

    /// A message of the driver or the server without the password.
    pub(super) fn without_secrets(&self, message: &str) -> String {
        self.hidden.iter().fold(message.to_owned(), |message, hidden| message.replace(hidden.expose(), "***"))
    }
}

/// Whether the text after a host's colon can be a port. An IPv6 address has colons of its own, in brackets.
fn has_port_or_none(host: &str) -> bool {
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    behind.split_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_its_hosts_and_nothing_else() {
        for (text, shown) in [
            ("mongodb://127.0.0.1:27017", "mongodb://127.0.0.1:27017"),
            ("mongodb://u:sEcRet%40@a:1,b:2/db?authSource=x", "mongodb://a:1,b:2"),
            ("mongodb://[::1]:27017,[fe80::1]", "mongodb://[::1]:27017,[fe80::1]"),
            ("mongodb+srv://u:sEcRet@cluster.example.net/?w=1", "mongodb+srv://cluster.example.net"),
            (
                "mongodb://account.mongo.cosmos.azure.com:10255?ssl=true",
                "mongodb://account.mongo.cosmos.azure.com:10255",
            ),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.to_string().as_str(), address.uri()), (shown, text));
            assert!(!format!("{address:?}").contains("sEcRet"));
        }
        let address = Address::parse("mongodb://u:s%40ecret@h/").unwrap();
        assert_eq!(address.without_secrets("no s@ecret, no s%40ecret"), "no ***, no ***");
        for text in [
            "https://x",
            "mongodb://",
            "mongodb://u:p/q@h/",
            "events",
            "mongodb://u:p@",
            "mongodb://u:sEcRet",
            "mongodb://h:1,u:sEcRet/",
        ] {
            assert_eq!(Address::parse(text).unwrap_err(), NotAnAddress, "{text}");
        }
    }
}

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

/// Options whose values are secrets.
const SECRET_OPTIONS: [&str; 3] = ["authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"];

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
        let password = user_info.split_once(':').map_or("", |(_, password)| password);
        let options = pairs(text).filter_map(|pair| pair.split_once('='));
        let secrets = options.filter(|(name, _)| SECRET_OPTIONS.iter().any(|secret| name.eq_ignore_ascii_case(secret)));
        let secrets = secrets.map(|(_, value)| value).chain([password]);
        let hidden = secrets.flat_map(|secret| [secret.to_owned(), decoded(secret)]);
        Ok(Self {
            uri: Secret::new(text),
            shown: format!("{scheme}://{hosts}"),
            hidden: hidden.filter(|text| !text.is_empty()).map(Secret::new).collect(),
        })
    }

    /// Checks that the driver accepts all of it; contacts nobody.
    ///
    /// # Errors
    /// With the driver's reason, without any secret.
    pub fn check(&self) -> Result<(), NotUnderstood> {
        if let Some(problem) = badly_written(self.uri()) {
            return Err(NotUnderstood(problem.into()));
        }
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
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    behind.split_once(':').is_none_or(|(_, port)| is_port(port))
}

/// Finds mistakes that the driver would report by quoting a part of a secret, or by ending the program.
fn badly_written(uri: &str) -> Option<&'static str> {
    let before_options = uri.split('?').next().unwrap_or_default();
    let user_info = before_options.rsplit_once('@').map_or("", |(user_info, _)| user_info);
    let is_encoded =
        |rest: &str| rest.as_bytes().first_chunk::<2>().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !user_info.split('%').skip(1).all(is_encoded) {
        return Some("the user or the password has a % without two hexadecimal digits after it");
    }
    for pair in pairs(uri) {
        let Some((name, value)) = pair.split_once('=') else {
            return Some("an option is not written as NAME=VALUE");
        };
        let is_property = |property: &str| property.contains(':');
        if name.eq_ignore_ascii_case("authMechanismProperties") && !decoded(value).split(',').all(is_property) {
            return Some("a property in authMechanismProperties is not written as NAME:VALUE");
        }
    }
    None
}

/// The options of an address.
fn pairs(uri: &str) -> impl Iterator<Item = &str> {
    let options = uri.split_once('?').map_or("", |(_, options)| options);
    options.split('&').filter(move |_| !options.is_empty())
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
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
        for uri in [
            "mongodb://u:sEc%aéRet@h/",
            "mongodb://u:sEcRet%a@h/",
            "mongodb://u%zz:sEcRet@h/",
            "mongodb://u:p@h/?tlsCertificateKeyFilePassword=x&sEcRet",
            "mongodb://u:p@h/?w=1&authMechanismProperties=AWS_SESSION_TOKEN:x,sEcRet",
            "mongodb://u:p@h/?tls=false&tlsCertificateKeyFilePassword=sEcRet",
            "mongodb://u:p@h/?proxyPassword=sEcRet",
        ] {
            let problem = Address::parse(uri).unwrap().check().unwrap_err().to_string();
            assert!(!problem.contains("Ret") && !problem.contains("éR"), "{uri}: {problem}");
        }
        for text in [
            "https://x",
            "mongodb://u:1234567",
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

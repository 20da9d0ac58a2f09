//! Which collector receives telemetry, from the standard settings.

use std::{collections::HashMap, time::Duration};

use url::Url;

use crate::config::{ConfigError, Secret, Settings, is_loopback};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const SERVICE: &str = "OTEL_SERVICE_NAME";
/// Defined by the standard; the library reads it.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";

/// Which collector receives telemetry, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    pub(super) endpoint: Url,
    headers: Vec<(String, Secret)>,
    pub(super) service: String,
    pub(super) interval: Duration,
    pub(super) obeys_sampler: bool,
}

impl ExportConfig {
    /// Reads the standard settings; `None` when no collector is named.
    ///
    /// # Errors
    /// When one of them is wrong. The headers, which hold credentials, are never quoted.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let Some(text) = settings.get(ENDPOINT) else { return Ok(None) };
        let fix = "write the collector's address, such as http://127.0.0.1:4318 or https://collector.example.com";
        // Not the text itself: some vendors put a token into the address.
        let endpoint = Url::parse(text).map_err(|e| ConfigError::new(ENDPOINT, format!("is not a URL: {e}"), fix))?;
        if endpoint.host_str().is_none() || !matches!(endpoint.scheme(), "http" | "https") {
            return Err(ConfigError::new(ENDPOINT, "is not an http(s) URL with a host", fix));
        }
        if let Some(protocol) = settings.get(PROTOCOL)
            && protocol != "http/protobuf"
        {
            return Err(ConfigError::new(
                PROTOCOL,
                format!("{protocol:?} is not supported"),
                "write http/protobuf, and the collector's port for it (4318 by default); or remove the setting",
            ));
        }
        let headers = settings.get(HEADERS).map(headers).transpose()?.unwrap_or_default();
        if !headers.is_empty() && endpoint.scheme() == "http" && !is_loopback(&endpoint) {
            return Err(ConfigError::new(
                HEADERS,
                "would be readable on the way: the endpoint is plain http on another machine",
                "use an https endpoint, or send without headers",
            ));
        }
        let interval = settings.get(INTERVAL).unwrap_or("60000");
        let interval = match interval.parse::<u64>() {
            Ok(ms) if (100..=3_600_000).contains(&ms) => Duration::from_millis(ms),
            _ => {
                return Err(ConfigError::new(
                    INTERVAL,
                    format!("{interval:?} is not allowed"),
                    "write milliseconds from 100 to 3600000",
                ));
            }
        };
        Ok(Some(Self {
            endpoint,
            headers,
            service: settings.get(SERVICE).unwrap_or("cosmos-rewind").to_owned(),
            interval,
            obeys_sampler: settings.get(SAMPLER).is_some(),
        }))
    }

    /// The address of one signal, built as the standard requires.
    pub(super) fn address(&self, signal: &str) -> String {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/v1/{signal}", self.endpoint.path().trim_end_matches('/')));
        url.into()
    }

    pub(super) fn headers(&self) -> HashMap<String, String> {
        self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
    }
}

/// `name=value,name=value`, with percent-encoded values, as the standard defines it.
fn headers(text: &str) -> Result<Vec<(String, Secret)>, ConfigError> {
    let wrong = |problem: String| {
        ConfigError::new(HEADERS, problem, "write name=value, with commas between several: api-key=...")
    };
    let mut headers = Vec::new();
    for (nth, part) in text.split(',').enumerate() {
        let (name, value) = part.split_once('=').ok_or_else(|| wrong(format!("part {} has no = in it", nth + 1)))?;
        let name = name.trim();
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(fine) {
            return Err(wrong(format!("the name in part {} is not a header name", nth + 1)));
        }
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy();
        if value.is_empty() || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(wrong(format!("the value in part {} is empty, or not printable ASCII", nth + 1)));
        }
        headers.push((name.to_owned(), Secret::new(value)));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Option<ExportConfig>, ConfigError> {
        ExportConfig::from_settings(&Settings::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn no_endpoint_no_export_whatever_else_is_set() {
        assert_eq!(config(&[]).unwrap(), None);
        assert_eq!(config(&[(HEADERS, "nonsense")]).unwrap(), None);
    }

    #[test]
    fn the_standards_settings_are_read_and_headers_never_shown() {
        let config =
            config(&[(ENDPOINT, "https://c.example.com/base/"), (HEADERS, "api-key=SECRET%20x, tenant=t")]).unwrap();
        let config = config.unwrap();
        assert_eq!(config.address("traces"), "https://c.example.com/base/v1/traces");
        assert_eq!(config.headers()["api-key"], "SECRET x");
        assert!(!format!("{config:?}").contains("SECRET"));
    }

    #[test]
    fn a_wrong_setting_is_named_and_its_value_not_quoted() {
        for (name, value) in [
            (ENDPOINT, "SECRET"),
            (ENDPOINT, "ftp://SECRET/"),
            (PROTOCOL, "grpc"),
            (HEADERS, "SECRET"),
            (HEADERS, "a b=SECRET"),
            (HEADERS, "api-key="),
            (INTERVAL, "1"),
            (INTERVAL, "often"),
        ] {
            let error = config(&[(ENDPOINT, "http://127.0.0.1:4318"), (name, value)]).unwrap_err();
            assert_eq!(error.name, name);
            assert!(!error.fix.is_empty() && !error.to_string().contains("SECRET"), "{error}");
        }
        let error = config(&[(ENDPOINT, "http://collector:4318"), (HEADERS, "api-key=SECRET")]).unwrap_err();
        assert!(error.name == HEADERS && !error.to_string().contains("SECRET"), "{error}");
    }
}

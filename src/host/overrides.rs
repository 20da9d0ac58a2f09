//! App settings that override values of host.json (Azure Functions, "Override host.json values").

use std::path::Path;

use serde_json::Value;

use super::app::{AppFileError, read_json};
use crate::config::Settings;

/// The prefix of an app setting that overrides a value of host.json; the value's path follows, joined by `__`.
pub const OVERRIDE: &str = "AzureFunctionsJobHost__";

/// Reads host.json as the host does: app settings override what the file says.
///
/// # Errors
/// As [`read_json`].
pub fn read_host(path: &Path, settings: &Settings) -> Result<Value, AppFileError> {
    let mut host = read_json(path)?;
    apply_overrides(&mut host, settings);
    Ok(host)
}

/// Applies the app settings that override values of host.json.
pub fn apply_overrides(host: &mut Value, settings: &Settings) {
    for (path, text) in settings.below(OVERRIDE) {
        let names: Vec<&str> = path.split("__").flat_map(|part| part.split(':')).collect();
        set_at(host, &names, text);
    }
}

fn set_at(place: &mut Value, path: &[&str], text: &str) {
    let [name, rest @ ..] = path else {
        *place = Value::String(text.to_owned());
        return;
    };
    if !place.is_object() {
        *place = Value::Object(serde_json::Map::new());
    }
    let Some(members) = place.as_object_mut() else { return };
    // The host's configuration ignores case.
    let own = members.keys().find(|own| own.eq_ignore_ascii_case(name)).cloned();
    set_at(members.entry(own.unwrap_or_else(|| (*name).to_owned())).or_insert(Value::Null), rest, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::fidelity::Delivery,
        host::app::{BUNDLE, BUNDLE_VERSIONS, delivery},
    };

    #[test]
    fn an_app_setting_stands_over_host_json_in_any_case() {
        let host = || {
            serde_json::json!({"extensionBundle": {"id": BUNDLE, "version": BUNDLE_VERSIONS},
            "extensions": {"CosmosDB": {"serializerSettings": {"dateParseHandling": "None"}}}})
        };
        let with = |name: &str, value: &str| {
            let mut host = host();
            apply_overrides(&mut host, &Settings::from_pairs([(name, value)]));
            delivery(&host)
        };
        assert_eq!(delivery(&host()), Delivery::DatesKept);
        let place = "extensions__cosmosDB__serializerSettings__dateParseHandling";
        assert_eq!(with(&format!("AzureFunctionsJobHost__{place}"), "DateTime"), Delivery::DatesRewritten);
        assert_eq!(with(&format!("azurefunctionsjobhost__{place}"), "none"), Delivery::DatesKept);
        assert_eq!(
            with("AzureFunctionsJobHost__extensionBundle__version", "[4.0.0, 4.20.0)"),
            Delivery::DatesRewritten
        );
        assert_eq!(with("AzureFunctionsJobHost__extensions:cosmosDB", "off"), Delivery::DatesRewritten);
        assert_eq!(with("AzureFunctionsJobHost__logging__fileLoggingMode", "always"), Delivery::DatesKept);
        let mut none = serde_json::json!({});
        let kept = Settings::from_pairs([
            (format!("AzureFunctionsJobHost__{place}"), "None"),
            ("AzureFunctionsJobHost__extensionBundle__id".into(), BUNDLE),
            ("AzureFunctionsJobHost__extensionBundle__version".into(), BUNDLE_VERSIONS),
        ]);
        apply_overrides(&mut none, &kept);
        assert_eq!(delivery(&none), Delivery::DatesKept);
    }
}

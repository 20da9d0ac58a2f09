//! Sets single members in the text of a JSON object; everything else stays byte for byte as it was.

use super::{diff::value_at, extended, key::render_path, pointer, raw::RawDocument};

/// Sets the member at `path` to `value` (JSON text). An existing member is replaced in place, duplicates included; a
/// new one is added at the end, with the objects that lead to it.
///
/// # Errors
/// When `text` is not a JSON object, or the path leads through a value that is not one, or through a value of Extended
/// JSON.
pub fn set(text: &str, path: &[String], value: &str) -> Result<String, String> {
    set_in(text, path, value, path)
}

fn set_in(text: &str, path: &[String], value: &str, whole: &[String]) -> Result<String, String> {
    let Some((name, rest)) = path.split_first() else { return Ok(value.to_owned()) };
    if let (Some(mut elements), Some(index)) = (elements(text), pointer::index(name)) {
        let known = elements.len();
        let edited = match elements.get(index) {
            Some(old) => set_in(old, rest, value, whole)?,
            None if index == known && rest.is_empty() => value.to_owned(),
            None => return Err(format!("{} cannot be set: the array has {known} elements", render_path(whole))),
        };
        if index == known {
            return Ok(array(elements.into_iter().chain([edited.as_str()])));
        }
        elements[index] = &edited;
        return Ok(array(elements));
    }
    let document = RawDocument::parse(text).map_err(|_| {
        let parent = whole.get(..whole.len() - path.len()).unwrap_or_default();
        let parent = if parent.is_empty() { "the document".to_owned() } else { render_path(parent) };
        format!("{} cannot be set: {parent} is not an object", render_path(whole))
    })?;
    if path.len() < whole.len() && extended::is_value_of(&document) {
        let parent = whole.get(..whole.len() - path.len()).unwrap_or_default();
        return Err(format!("{} cannot be set: {} is one value", render_path(whole), render_path(parent)));
    }
    let mut edited = String::with_capacity(text.len() + value.len() + 16);
    let mut copied = 0;
    for member in document.members().iter().filter(|m| m.is(name)) {
        let old = member.value.get();
        // A member's value is a slice of `text`, so the difference of the addresses is its offset.
        let at = old.as_ptr() as usize - text.as_ptr() as usize;
        edited.push_str(&text[copied..at]);
        edited.push_str(&set_in(old, rest, value, whole)?);
        copied = at + old.len();
    }
    if copied > 0 {
        edited.push_str(&text[copied..]);
        return Ok(edited);
    }
    let added = rest.iter().rev().fold(value.to_owned(), |inner, segment| format!("{{{}:{inner}}}", quote(segment)));
    let end = text.rfind('}').unwrap_or(text.len());
    let (body, brace) = text.split_at(end);
    edited.push_str(body.trim_end());
    if !document.members().is_empty() {
        edited.push(',');
    }
    edited.push_str(&quote(name));
    edited.push(':');
    edited.push_str(&added);
    edited.push_str(brace);
    Ok(edited)
}

/// Removes the member at `path`, duplicates included; everything else stays as it is. A path that leads nowhere is not
/// an error.
///
/// # Errors
/// When `text` is not a JSON object, or the path leads into a value of Extended JSON.
pub fn remove(text: &str, path: &[String]) -> Result<String, String> {
    let Some((name, rest)) = path.split_first() else { return Ok(text.to_owned()) };
    if let (Some(mut elements), Some(index)) = (elements(text), pointer::index(name)) {
        if index >= elements.len() {
            return Ok(text.to_owned());
        }
        if !rest.is_empty() {
            if extended::is_value(elements[index]) && value_at(elements[index], rest).is_some() {
                return Err(format!("{} cannot be removed: it is in one value", render_path(path)));
            }
            let inner = remove(elements[index], rest)?;
            elements[index] = &inner;
            return Ok(array(elements));
        }
        if index + 1 < elements.len() {
            return Err(format!("element {index} of an array cannot be removed: those behind it would move"));
        }
        elements.pop();
        return Ok(array(elements));
    }
    let document = RawDocument::parse(text).map_err(|e| format!("the document is not a JSON object: {e}"))?;
    let mut members = Vec::with_capacity(document.members().len());
    for member in document.members() {
        if !member.is(name) {
            members.push(format!("{}:{}", member.key.get(), member.value.get()));
        } else if !rest.is_empty() {
            let value = member.value.get();
            if extended::is_value(value) && value_at(value, rest).is_some() {
                return Err(format!("{} cannot be removed: it is in one value", render_path(path)));
            }
            let inner = if value.starts_with(['{', '[']) { remove(value, rest)? } else { value.to_owned() };
            members.push(format!("{}:{inner}", member.key.get()));
        }
    }
    if members.len() == document.members().len() && rest.is_empty() {
        return Ok(text.to_owned());
    }
    Ok(format!("{{{}}}", members.join(",")))
}

/// The elements of an array's text; `None` when it is not an array.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let elements: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(serde_json::value::RawValue::get).collect())
}

fn array<'e>(elements: impl IntoIterator<Item = &'e str>) -> String {
    format!("[{}]", elements.into_iter().collect::<Vec<_>>().join(","))
}

/// A string as JSON text.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// Appends a string as JSON text.
pub fn push_quoted(out: &mut String, text: &str) {
    // Hardly any string needs an escape; those that do are left to the library.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.extend(["\"", text, "\""]);
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use crate::change::key::parse_path;

    fn set(text: &str, path: &str, value: &str) -> Result<String, String> {
        super::set(text, &parse_path(path).unwrap(), value)
    }

    #[test]
    fn a_member_is_added_at_the_end_or_replaced_where_it_stands() {
        assert_eq!(set("{}", "/id", "\"x\"").unwrap(), r#"{"id":"x"}"#);
        assert_eq!(set("{ \"n\": 1.10 }", "/id", "7").unwrap(), r#"{ "n": 1.10,"id":7}"#);
        assert_eq!(set(r#"{"id" : 1.0 ,"n":1e2}"#, "/id", "\"x\"").unwrap(), r#"{"id" : "x" ,"n":1e2}"#);
        assert_eq!(set(r#"{"id":1,"n":{"id":2},"id":3}"#, "/id", "4").unwrap(), r#"{"id":4,"n":{"id":2},"id":4}"#);
        assert_eq!(set("{\"a\":\"}\"}\n", "/b", "1").unwrap(), "{\"a\":\"}\",\"b\":1}\n");
        assert_eq!(set(r#"{"i\u0064":1}"#, "/id", "2").unwrap(), r#"{"i\u0064":2}"#);
    }

    #[test]
    fn a_path_is_followed_and_made() {
        assert_eq!(set(r#"{"a":{"b": 1, "c":2}}"#, "/a/b", "3").unwrap(), r#"{"a":{"b": 3, "c":2}}"#);
        assert_eq!(set(r#"{"x":1}"#, "/a/b/c", "3").unwrap(), r#"{"x":1,"a":{"b":{"c":3}}}"#);
        assert!(set(r#"{"a":5}"#, "/a/b", "3").unwrap_err().contains("/a is not an object"));
        assert!(set("[]", "/a", "3").unwrap_err().contains("the document is not an object"));
    }

    #[test]
    fn a_value_of_extended_json_is_set_and_removed_whole() {
        let text = r#"{"a":{"$numberInt":"5"},"b":[{"$oid":"x"}]}"#;
        assert_eq!(
            set(text, "/a", r#"{"$numberDouble":"7"}"#).unwrap(),
            r#"{"a":{"$numberDouble":"7"},"b":[{"$oid":"x"}]}"#
        );
        for inside in ["/a/$numberInt", "/a/x", "/b/0/$oid"] {
            assert!(set(text, inside, "3").unwrap_err().ends_with("is one value"), "{inside}");
        }
        let remove = |path: &str| super::remove(text, &parse_path(path).unwrap());
        assert_eq!(remove("/a").unwrap(), r#"{"b":[{"$oid":"x"}]}"#);
        assert!(remove("/a/$numberInt").unwrap_err().ends_with("/a/$numberInt cannot be removed: it is in one value"));
        assert!(remove("/b/0/$oid").unwrap_err().ends_with("it is in one value"));
        assert_eq!(remove("/a/x").unwrap(), text);
    }

    #[test]
    fn an_element_of_an_array_is_set_added_at_the_end_or_removed_from_it() {
        let text = r#"{"tags":["a", 1.0,{"k":1}],"x":1}"#;
        assert_eq!(set(text, "/tags/1", "2").unwrap(), r#"{"tags":["a",2,{"k":1}],"x":1}"#);
        assert_eq!(set(text, "/tags/2/k", "2").unwrap(), r#"{"tags":["a",1.0,{"k":2}],"x":1}"#);
        assert_eq!(set(text, "/tags/3", "2").unwrap(), r#"{"tags":["a",1.0,{"k":1},2],"x":1}"#);
        assert!(set(text, "/tags/4", "2").unwrap_err().contains("/tags/4 cannot be set: the array has 3 elements"));
        let remove = |path: &str| super::remove(text, &parse_path(path).unwrap());
        assert_eq!(remove("/tags/2").unwrap(), r#"{"tags":["a",1.0],"x":1}"#);
        assert_eq!(remove("/tags/2/k").unwrap(), r#"{"tags":["a",1.0,{}],"x":1}"#);
        assert!(remove("/tags/0").unwrap_err().contains("those behind it would move"));
        assert_eq!(remove("/tags/7").unwrap(), text);
    }
}

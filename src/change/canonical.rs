//! One canonical text for all JSON texts that mean the same.

use super::{
    diff::{Meaning, Members, ValueNode},
    edit::quote,
};

/// The canonical text: members sorted by name, each once, no white space, strings and numbers in one spelling. Two
/// texts have the same canonical text exactly when [`super::diff::same`] says that they mean the same.
pub fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push(&ValueNode::parse(text, 0), &mut out);
    out
}

fn push(node: &ValueNode<'_>, out: &mut String) {
    match &node.meaning {
        Meaning::Object(members) | Meaning::Extended(members) => push_members(members, out),
        Meaning::Array(elements) => {
            out.push('[');
            for (place, element) in elements.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                push(element, out);
            }
            out.push(']');
        }
        Meaning::String(text) => out.push_str(&quote(text)),
        Meaning::Number(number) => out.push_str(&number.to_string()),
        Meaning::Text => out.push_str(node.text),
    }
}

fn push_members(members: &Members<'_>, out: &mut String) {
    let mut sorted: Vec<_> = members.list.iter().collect();
    sorted.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    out.push('{');
    for (place, (name, value)) in sorted.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        out.push_str(&quote(name));
        out.push(':');
        push(value, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::change::diff::same;

    #[test]
    fn spellings_of_one_meaning_have_one_text() {
        let texts = [r#"{"b":[1.50,"é\n"],"a":null}"#, "{ \"a\" : null,\n\"b\":[15e-1, \"\\u00e9\\u000a\"] }"];
        for text in texts {
            assert_eq!(canonical(text), r#"{"a":null,"b":[15e-1,"é\n"]}"#);
        }
        for other in [r#"{"b":["1.5","é\n"],"a":null}"#, r#"{"b":[1.5,"é\n"]}"#, r#"{"b":["é\n",1.5],"a":null}"#] {
            assert_ne!(canonical(other), canonical(texts[0]), "{other}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3..3i64).prop_map(Value::from),
            (-2.0..2.0f64).prop_map(|n| json!((n * 2.0).round() / 2.0)),
            "[a\"\\\\é]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::vec(("[ab]", inner), 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn two_texts_have_the_same_exactly_when_they_mean_the_same(a in value(), b in value()) {
            prop_assert_eq!(canonical(&a.to_string()) == canonical(&b.to_string()), same(&a.to_string(), &b.to_string()));
            // As another program may write it.
            let spread = serde_json::to_string_pretty(&a).unwrap().replace('é', "\\u00e9");
            prop_assert_eq!(canonical(&spread), canonical(&a.to_string()));
        }
    }
}

//! What a predicate says of a document of which only a part is known.

use serde_json::Value;

use super::{
    evaluate::{Evaluation, Predicate},
    member,
    parse::{Node, Operator},
    tokens::{TokenKind, tokens},
};
use crate::change::shape::LeftOut;

/// The paths that a predicate names and a record of a part may lack. When there is none, every record has the answer.
pub fn open_paths(predicate: &str, keys: &[Vec<String>]) -> Vec<Vec<String>> {
    let least = LeftOut::parse(None);
    paths(predicate).into_iter().filter(|path| hides(&least, keys, path)).collect()
}

/// The paths of the document that a predicate names. Where it computes a name, the path ends before that.
fn paths(predicate: &str) -> Vec<Vec<String>> {
    let all = tokens(predicate);
    let mut paths = Vec::new();
    for (at, token) in all.iter().enumerate() {
        if token.kind != TokenKind::Name || token.text != "c" || all[..at].last().is_some_and(|t| t.text == ".") {
            continue;
        }
        let (mut path, mut rest) = (Vec::new(), &all[at + 1..]);
        loop {
            rest = match rest {
                [open, number, close, rest @ ..]
                    if open.text == "[" && number.kind == TokenKind::Number && close.text == "]" =>
                {
                    rest
                }
                _ => {
                    let Some((name, used)) = member(rest) else { break };
                    path.push(name);
                    &rest[used..]
                }
            };
        }
        paths.push(path);
    }
    paths
}

/// The answer hinges on a field that is not known.
struct Hidden;

impl Predicate {
    /// Whether a document matches, of which only what is not hidden is known; `None` when nobody can tell.
    pub fn matches_part(&self, document: &Value, is_hidden: &dyn Fn(&[String]) -> bool) -> Option<bool> {
        self.root().known(document, is_hidden).ok().map(|answer| answer == Some(Value::Bool(true)))
    }
}

/// Whether a record with this much left out may hide what a path names; a document's key is in every record.
pub fn hides(left_out: &LeftOut, keys: &[Vec<String>], path: &[String]) -> bool {
    !keys.iter().any(|key| path.starts_with(key)) && left_out.hides(path)
}

impl Node {
    fn known(&self, document: &Value, is_hidden: &dyn Fn(&[String]) -> bool) -> Result<Evaluation, Hidden> {
        let of = |node: &Self| node.known(document, is_hidden);
        match self {
            Self::Not(inner) => Ok(of(inner)?.and_then(|value| value.as_bool()).map(|is| (!is).into())),
            Self::Binary(op @ (Operator::And | Operator::Or), left, right) => {
                // One side may decide, whatever the other one is.
                let decides = Some(Value::Bool(*op == Operator::Or));
                match (of(left), of(right)) {
                    (Ok(known), _) | (_, Ok(known)) if known == decides => Ok(known),
                    (Ok(_), Ok(_)) => Ok(self.evaluate(document)),
                    _ => Err(Hidden),
                }
            }
            _ if self.names(is_hidden) => Err(Hidden),
            _ => Ok(self.evaluate(document)),
        }
    }

    /// Whether it names a path of this kind.
    fn names(&self, is: &dyn Fn(&[String]) -> bool) -> bool {
        let any = |nodes: &[&Self]| nodes.iter().any(|node| node.names(is));
        match self {
            Self::Value(_) => false,
            Self::Document => is(&[]),
            Self::Member(of, name) => self.path().map_or_else(|| of.names(is), |path| is(&path)) || name.names(is),
            Self::Not(inner) | Self::Minus(inner) => inner.names(is),
            Self::Binary(_, left, right) => any(&[left, right]),
            Self::In(what, list) => what.names(is) || list.iter().any(|node| node.names(is)),
            Self::Between(one, two, three) | Self::Choice(one, two, three) => any(&[one, two, three]),
            Self::Call(_, list) | Self::Array(list) => list.iter().any(|node| node.names(is)),
        }
    }

    /// The path of a member of the document.
    fn path(&self) -> Option<Vec<String>> {
        match self {
            Self::Document => Some(Vec::new()),
            Self::Member(of, name) => {
                let mut path = of.path()?;
                match name.as_ref() {
                    Self::Value(Some(Value::String(name))) => path.push(name.clone()),
                    Self::Value(Some(Value::Number(_))) => {}
                    // It may be any member.
                    _ => return None,
                }
                Some(path)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_a_predicate_are_found_in_any_sql() {
        let found = paths(
            "c.a.b = 'c.x' AND EXISTS(SELECT VALUE t FROM t IN c['tags'] WHERE t.c = 1) OR c.l[0].m > @p -- c.no",
        );
        let found: Vec<String> = found.iter().map(|path| path.join("/")).collect();
        assert_eq!(found, ["a/b", "tags", "l/m"]);
        assert_eq!(paths("IS_DEFINED(c[@name])"), [Vec::<String>::new()]);
        let keys = [vec!["pk".to_owned()]];
        assert_eq!(open_paths("c.id = 'a' AND c.pk = 1 AND c._ts > 2", &keys), Vec::<Vec<String>>::new());
        assert_eq!(open_paths("c.pk = 1 AND c.n = 2", &keys), [["n"]]);
    }

    #[test]
    fn what_is_known_may_decide() {
        let document = json!({"city": "Oslo", "n": 1});
        let asked = |predicate: &str| {
            let is_hidden = |path: &[String]| path.first().is_none_or(|name| name == "ssn");
            Predicate::parse(predicate, |_| None).unwrap().matches_part(&document, &is_hidden)
        };
        for (predicate, answer) in [
            ("c.city = 'Oslo'", Some(true)),
            ("c.city = 'Rome'", Some(false)),
            ("c.ssn = '1'", None),
            ("NOT IS_DEFINED(c.ssn)", None),
            ("c.city = 'Oslo' AND c.ssn = '1'", None),
            ("c.city = 'Rome' AND c.ssn = '1'", Some(false)),
            ("c.ssn = '1' OR c.n = 1", Some(true)),
            ("NOT (c.ssn = '1' AND c.n = 2)", Some(true)),
            ("c.other.ssn = 1", Some(false)),
            ("c['s' || 'sn'] = 1", None),
            ("c.n IN (c.ssn)", None),
        ] {
            assert_eq!(asked(predicate), answer, "{predicate}");
        }
    }
}

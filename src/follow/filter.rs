//! Decides which changes are passed on: an expression of the Common Expression Language, compiled once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cel::{
    Context, Env, ExecutionError, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr},
};

use super::{
    Event,
    bad_filter::BadFilter,
    members::UsedMembers,
    values::{extended_at, extended_of, value_of},
};
use crate::change::{
    Op, diff,
    key::{ItemKey, KeyPaths, PartitionKey, parse_path},
    pointer,
    shape::LeftOut,
    version::Version,
};

/// The names that an expression may use.
const NAMES: [&str; 8] = ["op", "doc", "previous", "ts", "lsn", "id", "pk", "changed"];
/// Names of types, for comparisons with `type(x)`.
const TYPES: [&str; 10] = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];

/// A compiled expression.
pub struct Filter {
    source: String,
    env: Arc<Env>,
    program: Program,
    needs_previous: bool,
    /// The members that it uses, of the document and of the one before.
    doc: UsedMembers,
    previous: UsedMembers,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Filter").field(&self.source).finish()
    }
}

/// Why an expression has no answer for a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It would have none for any change: it uses an unknown function.
    #[error("unknown function or name {0:?} in the expression")]
    Undeclared(String),
    /// This change lacks what it needs; the kind of the problem, without any value of the document.
    #[error("{0}")]
    Unknown(&'static str),
}

impl Filter {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is malformed, or uses an unknown name; with the line and a caret below the place.
    pub fn compile(source: &str) -> Result<Self, BadFilter> {
        let env = Arc::new(Env::stdlib());
        let program = env.compile(source).map_err(|errors| match errors.errors.first() {
            Some(e) => BadFilter::at_line(source, &e.msg, e.pos.0, e.pos.1),
            None => BadFilter::at(source, "is not an expression".into(), 0),
        })?;
        if let Some((id, name)) = unknown_name(program.expression(), &mut Vec::new()) {
            let place = program.source_info().offset_for(id).map_or(0, |(start, _)| start as usize);
            let problem = format!("{name:?} is not known; there are {}", NAMES.join(", "));
            return Err(BadFilter::at(source, problem, place));
        }
        let needs_previous = {
            let references = program.references();
            references.has_function("changed") || references.has_variable("previous")
        };
        let asked = |variable| UsedMembers::of(variable, program.expression());
        let (doc, previous) = (asked("doc"), asked("previous"));
        Ok(Self { source: source.to_owned(), env, program, needs_previous, doc, previous })
    }

    /// Whether it needs the document before, which only the all-versions feed has.
    pub fn needs_previous(&self) -> bool {
        self.needs_previous
    }

    /// Whether the answer for a part of a document may differ from that for the whole one.
    pub fn may_hinge_on(&self, left_out: &LeftOut, keys: &KeyPaths, extended: bool) -> bool {
        self.needs_previous || self.doc.any_left_out(left_out, keys, extended)
    }

    /// Whether a change is to be passed on.
    ///
    /// # Errors
    /// When the expression has no answer, or one that is neither true nor false.
    pub fn matches(&self, event: &Event<'_>) -> Result<bool, NoAnswer> {
        self.answer(&Subject {
            op: event.op,
            id: &event.id,
            pk: &event.pk,
            ts: event.ts,
            lsn: event.lsn,
            doc: event.doc.as_deref(),
            previous: event.previous.as_deref(),
            changed: event.changed.as_deref(),
            before_unknown: event.previous.is_none() && event.op != Op::Create,
            extended: event.native.is_some(),
        })
    }

    /// Whether a version matches.
    ///
    /// # Errors
    /// When the expression has no answer, or one that is neither true nor false.
    pub fn answer(&self, of: &Subject<'_>) -> Result<bool, NoAnswer> {
        let json = |text: Option<&str>, asked: &UsedMembers, extended: bool| {
            let value = match text {
                Some(text) if extended => extended_of(text, asked),
                Some(text) => value_of(text, asked),
                None => Some(Value::Null),
            };
            value.ok_or(NoAnswer::Unknown("the document is not understood"))
        };
        let number = |n: Option<i64>| n.map_or(Value::Null, Value::Int);
        let asked_in_vain = Arc::new(AtomicBool::new(false));
        let mut context = Context::with_env(self.env.clone());
        context.add_variable_from_value("op", of.op.as_str());
        context.add_variable_from_value("doc", json(of.doc, &self.doc, of.extended)?);
        context.add_variable_from_value("ts", number(of.ts));
        context.add_variable_from_value("lsn", number(of.lsn));
        context.add_variable_from_value("id", of.id);
        context.add_variable_from_value("pk", json(Some(&super::line::key_text(of.pk)), &UsedMembers::All, false)?);
        if self.needs_previous {
            context.add_variable_from_value("previous", json(of.previous, &self.previous, of.extended)?);
            // The paths that an update names itself: its texts may be from other moments.
            let told = of.changed.filter(|_| of.op == Op::Update || of.previous.is_none()).map(<[String]>::to_vec);
            let (before_unknown, in_vain) = (of.before_unknown, asked_in_vain.clone());
            let (before, after, extended) = (of.previous.map(str::to_owned), of.doc.map(str::to_owned), of.extended);
            let changed = move |path: Arc<String>| -> Result<bool, ExecutionError> {
                let path = parse_path(&path).map_err(|e| ExecutionError::function_error("changed", e))?;
                if let Some(told) = &told {
                    return Ok(told.iter().any(|changed| meet(changed, &path)));
                }
                if before_unknown {
                    in_vain.store(true, Ordering::Relaxed);
                    return Err(ExecutionError::function_error("changed", "nothing to compare with"));
                }
                let at = if extended { extended_at } else { diff::value_at };
                let before = before.as_deref().and_then(|text| at(text, &path));
                let after = after.as_deref().and_then(|text| at(text, &path));
                Ok(!diff::same_value(before, after))
            };
            context.add_function("changed", changed).map_err(|_| NoAnswer::Unknown("changed() cannot be declared"))?;
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(_) => Err(NoAnswer::Unknown("the result is neither true nor false")),
            Err(_) if asked_in_vain.load(Ordering::Relaxed) => {
                Err(NoAnswer::Unknown("what the document was before the change is not known"))
            }
            Err(e) => Err(no_answer(&e)),
        }
    }
}

/// Whether a changed path contains another one, or lies inside it.
fn meet(changed: &str, path: &[String]) -> bool {
    pointer::names(changed).zip(path).all(|(changed, segment)| changed == *segment)
}

/// The input of an expression: a version of a document, and the one before.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The operation.
    pub op: Op,
    /// The document's id.
    pub id: &'a str,
    /// Its partition key.
    pub pk: &'a PartitionKey,
    /// When, epoch seconds.
    pub ts: Option<i64>,
    /// The source's LSN.
    pub lsn: Option<i64>,
    /// The document's text; `None` for a tombstone.
    pub doc: Option<&'a str>,
    /// The text before.
    pub previous: Option<&'a str>,
    /// The paths that changed (JSON Pointers), when the source names them without the text before.
    pub changed: Option<&'a [String]>,
    /// Whether there was a text before that nobody told: then `changed` has no answer, unless the source names the paths.
    pub before_unknown: bool,
    /// Whether the texts are MongoDB documents: the expression then sees plain values, under the document's own names.
    pub extended: bool,
}

impl<'a> Subject<'a> {
    /// A version from the history, with its text and the one before.
    pub fn of(item: &'a ItemKey, version: &Version, doc: Option<&'a str>, previous: Option<&'a str>) -> Self {
        Self {
            op: version.op.unwrap_or(Op::Upsert),
            id: &item.id,
            pk: &item.partition_key,
            ts: Some(version.ts),
            lsn: version.lsn,
            doc,
            previous,
            changed: None,
            before_unknown: false,
            extended: version.is_native,
        }
    }
}

/// Strips the values that the library's own messages quote: a document's content must not appear in a log.
fn no_answer(error: &ExecutionError) -> NoAnswer {
    NoAnswer::Unknown(match error {
        ExecutionError::UndeclaredReference(name) => return NoAnswer::Undeclared(name.to_string()),
        ExecutionError::NoSuchKey(_) => "a field is not there",
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnexpectedType { .. } => "values of these types cannot be combined",
        ExecutionError::InvalidArgumentCount { .. } => "a function has the wrong number of arguments",
        ExecutionError::FunctionError { .. } => "a function failed",
        ExecutionError::IndexOutOfBounds(_) | ExecutionError::UnsupportedIndex(..) => "an element is not there",
        ExecutionError::Overflow(..) | ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a number is out of range"
        }
        _ => "it has no answer",
    })
}

/// The first name that is neither declared nor bound by a macro such as `exists`.
fn unknown_name<'e>(at: &'e IdedExpr, bound: &mut Vec<&'e str>) -> Option<(u64, &'e str)> {
    match &at.expr {
        Expr::Ident(name) => {
            let known = name.starts_with('@')
                || NAMES.contains(&name.as_str())
                || TYPES.contains(&name.as_str())
                || bound.contains(&name.as_str());
            (!known).then_some((at.id, name))
        }
        Expr::Call(call) => {
            let target = call.target.as_deref().and_then(|target| unknown_name(target, bound));
            target.or_else(|| call.args.iter().find_map(|arg| unknown_name(arg, bound)))
        }
        Expr::Comprehension(all) => {
            let outside = unknown_name(&all.iter_range, bound).or_else(|| unknown_name(&all.accu_init, bound));
            if outside.is_some() {
                return outside;
            }
            let depth = bound.len();
            bound.extend([all.iter_var.as_str(), all.accu_var.as_str()]);
            bound.extend(all.iter_var2.as_deref());
            let inside = unknown_name(&all.loop_cond, bound)
                .or_else(|| unknown_name(&all.loop_step, bound))
                .or_else(|| unknown_name(&all.result, bound));
            bound.truncate(depth);
            inside
        }
        Expr::List(list) => list.elements.iter().find_map(|element| unknown_name(element, bound)),
        Expr::Select(select) => unknown_name(&select.operand, bound),
        Expr::Map(map) => map.entries.iter().find_map(|entry| unknown_in(&entry.expr, bound)),
        Expr::Struct(object) => object.entries.iter().find_map(|entry| unknown_in(&entry.expr, bound)),
        Expr::Literal(_) | Expr::Unspecified => None,
    }
}

fn unknown_in<'e>(entry: &'e EntryExpr, bound: &mut Vec<&'e str>) -> Option<(u64, &'e str)> {
    match entry {
        EntryExpr::MapEntry(entry) => unknown_name(&entry.key, bound).or_else(|| unknown_name(&entry.value, bound)),
        EntryExpr::StructField(field) => unknown_name(&field.value, bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::values::MAX_DEPTH;

    fn event(op: Op, previous: Option<&str>, doc: Option<&str>) -> Event<'static> {
        Event {
            op,
            id: "28036".into(),
            pk: PartitionKey::parse("28036").unwrap(),
            ts: Some(1_700_000_000),
            lsn: Some(7),
            version: "28036~1".into(),
            doc: doc.map(|text| text.to_owned().into()),
            previous: previous.map(|text| text.to_owned().into()),
            changed: None,
            partial: None,
            etag: None,
            native: None,
        }
    }

    #[test]
    fn a_document_of_any_depth_is_asked_and_one_that_is_deeper_than_any_harms_nobody() {
        let nested = |depth: usize| format!("{{\"n\":1,\"v\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        for depth in [1, 64, 127, 128, MAX_DEPTH] {
            assert_eq!(answer("doc.n == 1", &event(Op::Create, None, Some(&nested(depth)))), Ok(true), "{depth}");
        }
        for depth in [MAX_DEPTH + 1, 1_000_000] {
            let asked = answer("doc.n == 1", &event(Op::Create, None, Some(&nested(depth))));
            assert!(matches!(asked, Err(NoAnswer::Unknown(_))), "{depth}");
        }
    }

    fn answer(filter: &str, event: &Event<'_>) -> Result<bool, NoAnswer> {
        Filter::compile(filter).unwrap().matches(event)
    }

    #[test]
    fn an_expression_decides_over_everything_that_an_event_has() {
        let replaced = event(
            Op::Replace,
            Some(r#"{"balance":10,"name":"a","tags":["x"]}"#),
            Some(r#"{"balance":-2.5,"name":"a","tags":["x","vip"],"big":18446744073709551615}"#),
        );
        for (filter, expected) in [
            (r#"op in ["create","replace"] && doc.balance < 0"#, true),
            ("doc.balance < previous.balance", true),
            (r#"changed("/balance") && !changed("/name")"#, true),
            (r#"changed("/tags/1")"#, true),
            (r#"changed("/tags/0") || changed("/nothing")"#, false),
            (r#"doc.tags.exists(tag, tag == "vip")"#, true),
            (r#"doc.tags.all(tag, tag.startsWith("v"))"#, false),
            ("has(doc.missing)", false),
            ("doc.big > 9223372036854775807", true),
            (r#"id == "28036" && pk == id && ts > 1600000000 && lsn == 7"#, true),
            (r#"doc.name.matches("^[a-c]$")"#, true),
            ("previous == null", false),
            ("type(doc.name) == string", true),
        ] {
            assert_eq!(answer(filter, &replaced), Ok(expected), "{filter}");
        }
        let gone = event(Op::Delete, Some(r#"{"a":1}"#), None);
        assert_eq!(answer(r#"op == "delete" && doc == null && changed("/a")"#, &gone), Ok(true));
    }

    #[test]
    fn what_has_no_answer_says_why_and_quotes_no_document() {
        let event = event(Op::Create, None, Some(r#"{"name":"SECRET"}"#));
        for (filter, reason) in [
            ("doc.balance < 0", "a field is not there"),
            ("doc.name < 0", "cannot be combined"),
            ("doc.name", "neither true nor false"),
            (r#"changed("name")"#, "a function failed"),
        ] {
            let error = answer(filter, &event).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("SECRET"), "{filter}: {error}");
        }
        assert_eq!(answer("nothing(doc)", &event), Err(NoAnswer::Undeclared("nothing".into())));
    }

    #[test]
    fn without_the_text_before_nothing_is_known_to_have_changed() {
        let of = |op, filter: &str| answer(filter, &event(op, None, Some(r#"{"a":1}"#)));
        for op in [Op::Upsert, Op::Update, Op::Replace, Op::Baseline] {
            assert!(matches!(of(op, r#"changed("/a")"#), Err(NoAnswer::Unknown(_))), "{op}");
            assert_eq!(of(op, r#"doc.a == 1 || changed("/a")"#), Ok(true), "{op}");
        }
        assert_eq!(of(Op::Create, r#"changed("/a")"#), Ok(true));
        let told = Event { changed: Some(vec!["/a".into()]), ..event(Op::Update, None, Some("{}")) };
        assert_eq!(answer(r#"changed("/a") && !changed("/b")"#, &told), Ok(true));
    }

    #[test]
    fn a_mistake_is_shown_with_a_caret_below_it() {
        let error = Filter::compile("op == \"create\" && balance < 0").unwrap_err().to_string();
        let known = "op, doc, previous, ts, lsn, id, pk, changed";
        assert_eq!(
            error,
            format!(
                "\"balance\" is not known; there are {known}\n  op == \"create\" && balance < 0\n  {}^",
                " ".repeat(18)
            )
        );
        assert!(Filter::compile("doc.tags.exists(t, u == 1)").unwrap_err().problem.starts_with("\"u\" is not known"));
        for (wrong, shown) in [
            ("doc.x <", "the expression ends too early\n  doc.x <\n         ^"),
            ("a b", "Syntax error: extraneous input 'b'\n  a b\n    ^"),
            (" ", "the expression is empty\n  ''\n  ^"),
        ] {
            assert_eq!(Filter::compile(wrong).unwrap_err().to_string(), shown);
        }
    }
}

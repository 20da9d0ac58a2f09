//! Runs a query over documents.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::ast::{Expr, From, FromItem, Query, Select};
use super::eval::{NameScope, Row, boolean, eval, total_order};
use super::{Computed, SqlError, Statement, aggregate};
use crate::local::message::json_of;

/// Returns the results of a statement over documents, in order, as JSON text.
pub(in crate::local) fn run(
    statement: &Statement,
    computed: &Computed,
    documents: impl Iterator<Item = Bytes>,
) -> Result<Vec<Bytes>, SqlError> {
    let scope = NameScope::root(&statement.parameters);
    let query = &statement.query;
    let mut results = Results::new(query, &scope)?;
    if query.from.is_empty() {
        results.row(&scope, None)?;
    } else {
        for text in documents {
            let mut document = json_of(&text)
                .map_err(|error| SqlError::Unsupported(format!("a stored document is unreadable: {error}")))?;
            computed.add(&mut document, &text);
            sources(&query.from, &scope, Some(&document), &mut |scope| results.row(scope, Some(&text)))?;
        }
    }
    Ok(results.finish()?.into_iter().map(Output::into_text).collect())
}

/// Returns the results of a subquery.
pub(super) fn values(query: &Query, scope: &NameScope<'_>) -> Result<Vec<Value>, SqlError> {
    let mut results = Results::new(query, scope)?;
    sources(&query.from, scope, None, &mut |scope| results.row(scope, None))?;
    Ok(results.finish()?.into_iter().map(Output::into_value).collect())
}

/// Calls `visit` for every combination of the inputs. The first input of the outermost query begins at `document`.
fn sources(
    from: &[FromItem],
    scope: &NameScope<'_>,
    document: Option<&Value>,
    visit: &mut dyn FnMut(&NameScope<'_>) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let Some((source, rest)) = from.split_first() else { return visit(scope) };
    let mut bind = |value: Option<&Value>| match (source.each, value) {
        (false, None) => Ok(()),
        (false, value) => sources(rest, &scope.with(&source.alias, value), None, visit),
        (true, Some(Value::Array(items))) => {
            items.iter().try_for_each(|item| sources(rest, &scope.with(&source.alias, Some(item)), None, visit))
        }
        (true, _) => Ok(()),
    };
    match &source.from {
        From::Query(query) => {
            let found = values(query, scope)?;
            found.iter().try_for_each(|value| bind(Some(value)))
        }
        From::Path(path) => match document {
            // Whatever the container is called, the path begins at the document.
            Some(document) => {
                let root = root_name(path);
                let inside = scope.with(root, Some(document));
                bind(eval(path, &inside)?.as_deref())
            }
            None => bind(eval(path, scope)?.as_deref()),
        },
    }
}

fn root_name(path: &Expr) -> &str {
    match path {
        Expr::Member(of, _) => root_name(of),
        Expr::Name(name) => name,
        _ => "",
    }
}

/// One result: kept as text where a whole document was selected, so that it stays unchanged.
enum Output {
    Text(Bytes),
    Value(Value),
}

impl Output {
    fn into_text(self) -> Bytes {
        match self {
            Self::Text(text) => text,
            Self::Value(value) => value.to_string().into(),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Text(text) => json_of(&text).unwrap_or_default(),
            Self::Value(value) => value,
        }
    }
}

struct Results<'q> {
    query: &'q Query,
    scope: &'q NameScope<'q>,
    is_grouped: bool,
    keep: usize,
    skip: usize,
    groups: Vec<Vec<Row>>,
    places: HashMap<String, usize>,
    rows: Vec<(Vec<Option<Value>>, Output)>,
}

impl<'q> Results<'q> {
    fn new(query: &'q Query, scope: &'q NameScope<'q>) -> Result<Self, SqlError> {
        if matches!(query.select, Select::Star) && query.from.len() != 1 {
            return Err(SqlError::Invalid("'SELECT *' is only valid with a single input set".into()));
        }
        let count = |expr: &Option<Expr>, otherwise: usize| match expr {
            None => Ok(otherwise),
            Some(expr) => {
                let value = eval(expr, scope)?;
                let count = value.as_deref().and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
                count.ok_or_else(|| SqlError::Invalid("TOP, OFFSET and LIMIT need a whole number from 0 on".into()))
            }
        };
        let (skip, limit) = (count(&query.offset, 0)?, count(&query.limit, usize::MAX)?);
        let keep = limit.min(count(&query.top, usize::MAX)?);
        Ok(Self {
            query,
            scope,
            is_grouped: aggregate::is_grouped(query),
            keep,
            skip,
            groups: Vec::new(),
            places: HashMap::new(),
            rows: Vec::new(),
        })
    }

    fn row(&mut self, scope: &NameScope<'_>, text: Option<&Bytes>) -> Result<(), SqlError> {
        if let Some(filter) = &self.query.filter
            && boolean(eval(filter, scope)?.as_deref()) != Some(true)
        {
            return Ok(());
        }
        if self.is_grouped {
            let key = self.query.group_by.iter().map(|expr| Ok(eval(expr, scope)?.map(Cow::into_owned)));
            let key = key.collect::<Result<Vec<_>, SqlError>>()?;
            let key: Vec<String> = key.iter().map(|value| canonical(value.as_ref())).collect();
            let next = self.groups.len();
            let place = *self.places.entry(key.join(",")).or_insert(next);
            if place == next {
                self.groups.push(Vec::new());
            }
            self.groups[place].push(kept(scope, self.query.from.len()));
            return Ok(());
        }
        let keys = self.query.order_by.iter().map(|order| Ok(eval(&order.expr, scope)?.map(Cow::into_owned)));
        let keys = keys.collect::<Result<Vec<_>, SqlError>>()?;
        if let Some(output) = self.project(scope, text)? {
            self.rows.push((keys, output));
        }
        Ok(())
    }

    fn project(&self, scope: &NameScope<'_>, text: Option<&Bytes>) -> Result<Option<Output>, SqlError> {
        let is_whole = |path: &From| matches!(path, From::Path(Expr::Name(_)));
        match (&self.query.select, &self.query.from[..], text) {
            (Select::Star, [source], Some(text)) if is_whole(&source.from) && !source.each => {
                return Ok(Some(Output::Text(text.clone())));
            }
            (Select::Value(Expr::Name(name)), [source], Some(text))
                if is_whole(&source.from) && !source.each && *name == source.alias =>
            {
                return Ok(Some(Output::Text(text.clone())));
            }
            _ => {}
        }
        let value = match &self.query.select {
            Select::Star => scope.value.cloned(),
            Select::Value(expr) => eval(expr, scope)?.map(Cow::into_owned),
            Select::List(items) => {
                let mut object = Map::new();
                for item in items {
                    if let Some(value) = eval(&item.expr, scope)? {
                        object.insert(item.name.clone(), value.into_owned());
                    }
                }
                Some(Value::Object(object))
            }
        };
        Ok(value.map(Output::Value))
    }

    fn finish(mut self) -> Result<Vec<Output>, SqlError> {
        if self.is_grouped {
            let mut groups = std::mem::take(&mut self.groups);
            if groups.is_empty() && self.query.group_by.is_empty() {
                groups.push(Vec::new());
            }
            for group in &groups {
                self.group(group)?;
            }
        }
        let directions: Vec<bool> = self.query.order_by.iter().map(|order| order.descending).collect();
        if !directions.is_empty() {
            self.rows.sort_by(|(left, _), (right, _)| {
                let pairs = left.iter().zip(right).zip(&directions);
                pairs.fold(Ordering::Equal, |so_far, ((left, right), descending)| {
                    let order = total_order(left.as_ref(), right.as_ref());
                    so_far.then(if *descending { order.reverse() } else { order })
                })
            });
        }
        let mut outputs: Vec<Output> = self.rows.into_iter().map(|(_, output)| output).collect();
        if self.query.distinct {
            let mut seen = HashSet::new();
            outputs.retain(|output| match output {
                Output::Text(_) => true,
                Output::Value(value) => seen.insert(canonical(Some(value))),
            });
        }
        Ok(outputs.into_iter().skip(self.skip).take(self.keep).collect())
    }

    fn group(&mut self, group: &[Row]) -> Result<(), SqlError> {
        let first = group.first().map_or(&[][..], Vec::as_slice);
        let mut made = None;
        let query = self.query;
        let this = &*self;
        aggregate::in_row(first, self.scope, &mut |scope| {
            let scope = NameScope { group: Some(group), ..*scope };
            let keys = query.order_by.iter().map(|order| Ok(eval(&order.expr, &scope)?.map(Cow::into_owned)));
            let keys = keys.collect::<Result<Vec<_>, SqlError>>()?;
            made = this.project(&scope, None)?.map(|output| (keys, output));
            Ok(())
        })?;
        self.rows.extend(made);
        Ok(())
    }
}

/// Returns the innermost `inputs` of a scope as a row, outermost first.
fn kept(scope: &NameScope<'_>, inputs: usize) -> Row {
    let mut row = Vec::with_capacity(inputs);
    let mut next = Some(scope);
    while let Some(scope) = next.filter(|_| row.len() < inputs) {
        row.push((scope.name.to_owned(), scope.value.cloned()));
        next = scope.outer;
    }
    row.reverse();
    row
}

/// Returns the same text for equal values.
fn canonical(value: Option<&Value>) -> String {
    match value {
        None => "undefined".to_owned(),
        Some(Value::Number(number)) => match number.as_i64() {
            Some(whole) => whole.to_string(),
            // Adding 0 turns -0 into 0.
            None => super::eval::number(number.as_f64().unwrap_or_default() + 0.0).unwrap_or_default().to_string(),
        },
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| canonical(Some(item))).collect();
            format!("[{}]", items.join(","))
        }
        Some(Value::Object(members)) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(Some(value))))
                .collect();
            members.sort();
            format!("{{{}}}", members.join(","))
        }
        Some(scalar) => scalar.to_string(),
    }
}

//! Parses a query's clauses.

use serde_json::Value;

use super::{
    Parser,
    tokens::{SqlToken, invalid},
};
use crate::local::sql::{
    SqlError,
    ast::{Expr, From, FromItem, NamedExpr, Order, Query, Select},
};

/// Words that begin a clause or stand between operands, and therefore cannot be aliases.
pub(super) const NO_ALIAS: &[&str] = &[
    "from", "join", "in", "where", "group", "order", "offset", "limit", "and", "or", "not", "between", "like",
    "escape", "asc", "desc", "as", "select",
];

impl Parser {
    pub(super) fn query(&mut self) -> Result<Query, SqlError> {
        self.deeper(Self::query_inside)
    }

    fn query_inside(&mut self) -> Result<Query, SqlError> {
        self.need_word("select")?;
        let distinct = self.word("distinct");
        let top = if self.word("top") { Some(self.count()?) } else { None };
        let select = self.select()?;
        let mut from = Vec::new();
        if self.word("from") {
            from.push(self.source()?);
            while self.word("join") {
                from.push(self.source()?);
            }
        }
        let filter = if self.word("where") { Some(self.expr()?) } else { None };
        let mut group_by = Vec::new();
        if self.word("group") {
            self.need_word("by")?;
            group_by = self.list(Self::expr)?;
        }
        let mut order_by = Vec::new();
        if self.word("order") {
            self.need_word("by")?;
            if self.is_word("rank") {
                return Err(SqlError::Unsupported("ORDER BY RANK".into()));
            }
            order_by = self.list(|parser| {
                let expr = parser.expr()?;
                let descending = parser.word("desc");
                if !descending {
                    parser.word("asc");
                }
                Ok(Order { expr, descending })
            })?;
        }
        let (mut offset, mut limit) = (None, None);
        if self.word("offset") {
            offset = Some(self.count()?);
            self.need_word("limit")?;
            limit = Some(self.count()?);
        }
        Ok(Query { distinct, top, select, from, filter, group_by, order_by, offset, limit })
    }

    /// Parses a count: a number or a parameter, and nothing after it.
    pub(super) fn count(&mut self) -> Result<Expr, SqlError> {
        let count = match self.peek() {
            SqlToken::Number(number) => Expr::Literal(number.clone()),
            SqlToken::Parameter(name) => Expr::Parameter(name.clone()),
            _ => return Err(self.unexpected("a number or a parameter")),
        };
        self.at += 1;
        Ok(count)
    }

    fn select(&mut self) -> Result<Select, SqlError> {
        if self.sign("*") {
            return Ok(Select::Star);
        }
        let at = self.at;
        if self.word("value") {
            // A property or an alias may also have this name.
            if !matches!(self.peek(), SqlToken::Sign("," | "." | ")") | SqlToken::End) && !self.is_word("from") {
                return Ok(Select::Value(self.expr()?));
            }
            self.at = at;
        }
        let items = self.list(|parser| {
            let expr = parser.expr()?;
            Ok((parser.alias()?, expr))
        })?;
        let mut unnamed = 0;
        let named = items.into_iter().map(|(alias, expr)| {
            let name = alias.unwrap_or_else(|| match &expr {
                Expr::Name(name) => name.clone(),
                Expr::Member(_, name) if matches!(&**name, Expr::Literal(Value::String(_))) => match &**name {
                    Expr::Literal(Value::String(name)) => name.clone(),
                    _ => String::new(),
                },
                _ => {
                    unnamed += 1;
                    format!("${unnamed}")
                }
            });
            NamedExpr { name, expr }
        });
        let named: Vec<NamedExpr> = named.collect();
        for (index, item) in named.iter().enumerate() {
            if named[..index].iter().any(|earlier| earlier.name == item.name) {
                return Err(invalid(format!("the property name {} is used twice in SELECT", item.name)));
            }
        }
        Ok(Select::List(named))
    }

    fn alias(&mut self) -> Result<Option<String>, SqlError> {
        if self.word("as") {
            return match self.peek().clone() {
                SqlToken::Text(text) => {
                    self.at += 1;
                    Ok(Some(text))
                }
                _ => Ok(Some(self.identifier()?)),
            };
        }
        match self.peek() {
            SqlToken::Word(word) if !NO_ALIAS.iter().any(|no| no.eq_ignore_ascii_case(word)) => {
                Ok(Some(self.identifier()?))
            }
            _ => Ok(None),
        }
    }

    fn source(&mut self) -> Result<FromItem, SqlError> {
        let at = self.at;
        if let SqlToken::Word(alias) = self.peek().clone() {
            self.at += 1;
            if self.word("in") {
                return Ok(FromItem { alias, from: self.origin()?, each: true });
            }
            self.at = at;
        }
        let from = self.origin()?;
        let alias = match (self.alias()?, &from) {
            (Some(alias), _) => alias,
            (None, From::Path(path)) => last_name(path).ok_or_else(|| invalid("an input of FROM needs an alias"))?,
            (None, From::Query(_)) => String::new(),
        };
        Ok(FromItem { alias, from, each: false })
    }

    fn origin(&mut self) -> Result<From, SqlError> {
        if self.sign("(") {
            let query = self.query()?;
            self.need_sign(")")?;
            return Ok(From::Query(Box::new(query)));
        }
        let name = self.identifier()?;
        Ok(From::Path(self.members(Expr::Name(name))?))
    }
}

pub(super) fn one_or(mut items: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match items.pop() {
        Some(only) if items.is_empty() => only,
        last => {
            items.extend(last);
            many(items)
        }
    }
}

fn last_name(path: &Expr) -> Option<String> {
    match path {
        Expr::Name(name) => Some(name.clone()),
        Expr::Member(_, name) => match &**name {
            Expr::Literal(Value::String(name)) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

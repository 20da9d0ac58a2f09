//! Parses text into a query.

mod clauses;
mod expressions;
mod tokens;

use self::tokens::{SqlToken, invalid, tokens};
use super::{SqlError, ast::Query};

/// The maximum nesting depth; the service's own limit is of this order.
const MAX_DEPTH: usize = 100;

const KEYWORDS: &[&str] = &[
    "select",
    "distinct",
    "top",
    "value",
    "as",
    "from",
    "join",
    "in",
    "where",
    "group",
    "by",
    "order",
    "asc",
    "desc",
    "offset",
    "limit",
    "and",
    "or",
    "not",
    "between",
    "like",
    "escape",
    "exists",
    "array",
    "true",
    "false",
    "null",
    "undefined",
    "udf",
];

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

pub(super) fn parse(text: &str) -> Result<Query, SqlError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let query = parser.query()?;
    match parser.peek() {
        SqlToken::End => Ok(query),
        _ => Err(parser.unexpected("the end of the query")),
    }
}

struct Parser {
    tokens: Vec<SqlToken>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &SqlToken {
        self.tokens.get(self.at).unwrap_or(&SqlToken::End)
    }

    fn unexpected(&self, wanted: &str) -> SqlError {
        let found = match self.peek() {
            SqlToken::End => "the end".to_owned(),
            SqlToken::Word(word) | SqlToken::Parameter(word) => word.clone(),
            SqlToken::Text(text) => format!("{text:?}"),
            SqlToken::Number(number) => number.to_string(),
            SqlToken::Sign(sign) => (*sign).to_owned(),
        };
        invalid(format!("{wanted} expected, found {found}"))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), SqlToken::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), SqlToken::Sign(found) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn need_word(&mut self, word: &str) -> Result<(), SqlError> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected(&word.to_uppercase())) }
    }

    fn need_sign(&mut self, sign: &str) -> Result<(), SqlError> {
        if self.sign(sign) { Ok(()) } else { Err(self.unexpected(sign)) }
    }

    fn identifier(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            SqlToken::Word(word) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        if self.depth >= MAX_DEPTH {
            return Err(invalid("the query is nested too deeply"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        let mut items = vec![item(self)?];
        while self.sign(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

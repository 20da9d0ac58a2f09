//! Text to query.

use serde_json::Value;

use super::ast::{Binary, Expr, From, Named, Order, Query, Select, Source, Unary};
use super::{SqlError, functions};

/// Nesting that is followed; the service's own limit is in this order.
const MAX_DEPTH: usize = 100;

/// Operators in a row, other than AND and OR.
const MAX_OPERATORS: usize = 500;

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

/// Words that begin a clause or stand between operands: they are no alias.
const NO_ALIAS: &[&str] = &[
    "from", "join", "in", "where", "group", "order", "offset", "limit", "and", "or", "not", "between", "like",
    "escape", "asc", "desc", "as", "select",
];

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Parameter(String),
    Text(String),
    Number(Value),
    Sign(&'static str),
    End,
}

/// The longest first.
const SIGNS: &[&str] = &[
    ">>>", "<<", ">>", "<=", ">=", "!=", "<>", "||", "??", "(", ")", "[", "]", "{", "}", ",", ".", ":", "?", "=", "<",
    ">", "+", "-", "*", "/", "%", "&", "|", "^", "~",
];

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::Invalid(message.into())
}

fn tokens(text: &str) -> Result<Vec<Token>, SqlError> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { break };
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
            continue;
        }
        if first == '"' || first == '\'' {
            let (value, after) = text_literal(rest, first)?;
            found.push(Token::Text(value));
            rest = after;
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            let (value, after) = number(rest)?;
            found.push(Token::Number(value));
            rest = after;
        } else if first == '_' || first == '@' || first.is_alphabetic() || first == '$' {
            let end = rest[first.len_utf8()..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
            let end = end.map_or(rest.len(), |end| end + first.len_utf8());
            let word = rest[..end].to_owned();
            found.push(if first == '@' { Token::Parameter(word) } else { Token::Word(word) });
            rest = &rest[end..];
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else {
            return Err(invalid(format!("unexpected character {first:?}")));
        }
    }
    found.push(Token::End);
    Ok(found)
}

fn number(text: &str) -> Result<(Value, &str), SqlError> {
    let mut end = 0;
    let bytes = text.as_bytes();
    while end < bytes.len() {
        let after_exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E');
        match bytes[end] {
            b'0'..=b'9' | b'.' | b'e' | b'E' => end += 1,
            b'+' | b'-' if after_exponent => end += 1,
            _ => break,
        }
    }
    let word = &text[..end];
    let value = match word.parse::<i64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => {
            word.parse::<f64>().ok().and_then(number_of).ok_or_else(|| invalid(format!("{word} is no number")))?
        }
    };
    Ok((value, &text[end..]))
}

fn number_of(value: f64) -> Option<Value> {
    serde_json::Number::from_f64(value).map(Value::Number)
}

fn text_literal(text: &str, quote: char) -> Result<(String, &str), SqlError> {
    // UTF-16, because an escape may be half of a pair.
    let mut out: Vec<u16> = Vec::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, character)) = chars.next() {
        if character == quote {
            return Ok((String::from_utf16_lossy(&out), &text[at + 1..]));
        }
        let mut push = |character: char| out.extend_from_slice(character.encode_utf16(&mut [0; 2]));
        if character != '\\' {
            push(character);
            continue;
        }
        let Some((at, escape)) = chars.next() else { break };
        match escape {
            'n' => push('\n'),
            't' => push('\t'),
            'r' => push('\r'),
            'b' => push('\u{8}'),
            'f' => push('\u{c}'),
            'u' => {
                let unit = text.get(at + 1..at + 5).and_then(|digits| u16::from_str_radix(digits, 16).ok());
                out.push(unit.ok_or_else(|| invalid("\\u needs four hexadecimal digits"))?);
                for _ in 0..4 {
                    chars.next();
                }
            }
            other => push(other),
        }
    }
    Err(invalid("a string has no end"))
}

pub(super) fn parse(text: &str) -> Result<Query, SqlError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let query = parser.query()?;
    match parser.peek() {
        Token::End => Ok(query),
        _ => Err(parser.unexpected("the end of the query")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn unexpected(&self, wanted: &str) -> SqlError {
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Word(word) | Token::Parameter(word) => word.clone(),
            Token::Text(text) => format!("{text:?}"),
            Token::Number(number) => number.to_string(),
            Token::Sign(sign) => (*sign).to_owned(),
        };
        invalid(format!("{wanted} expected, found {found}"))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
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
            Token::Word(word) => {
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

    fn query(&mut self) -> Result<Query, SqlError> {
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

    /// How many: a number or a parameter, and nothing after it.
    fn count(&mut self) -> Result<Expr, SqlError> {
        let count = match self.peek() {
            Token::Number(number) => Expr::Literal(number.clone()),
            Token::Parameter(name) => Expr::Parameter(name.clone()),
            _ => return Err(self.unexpected("a number or a parameter")),
        };
        self.at += 1;
        Ok(count)
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        let mut items = vec![item(self)?];
        while self.sign(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn select(&mut self) -> Result<Select, SqlError> {
        if self.sign("*") {
            return Ok(Select::Star);
        }
        let at = self.at;
        if self.word("value") {
            // A property or an alias may have this name.
            if !matches!(self.peek(), Token::Sign("," | "." | ")") | Token::End) && !self.is_word("from") {
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
            Named { name, expr }
        });
        let named: Vec<Named> = named.collect();
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
                Token::Text(text) => {
                    self.at += 1;
                    Ok(Some(text))
                }
                _ => Ok(Some(self.identifier()?)),
            };
        }
        match self.peek() {
            Token::Word(word) if !NO_ALIAS.iter().any(|no| no.eq_ignore_ascii_case(word)) => {
                Ok(Some(self.identifier()?))
            }
            _ => Ok(None),
        }
    }

    fn source(&mut self) -> Result<Source, SqlError> {
        let at = self.at;
        if let Token::Word(alias) = self.peek().clone() {
            self.at += 1;
            if self.word("in") {
                return Ok(Source { alias, from: self.origin()?, each: true });
            }
            self.at = at;
        }
        let from = self.origin()?;
        let alias = match (self.alias()?, &from) {
            (Some(alias), _) => alias,
            (None, From::Path(path)) => last_name(path).ok_or_else(|| invalid("an input of FROM needs an alias"))?,
            (None, From::Query(_)) => String::new(),
        };
        Ok(Source { alias, from, each: false })
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

    fn expr(&mut self) -> Result<Expr, SqlError> {
        self.deeper(Self::conditional)
    }

    fn conditional(&mut self) -> Result<Expr, SqlError> {
        let condition = self.coalesce()?;
        if !self.sign("?") {
            return Ok(condition);
        }
        let yes = self.expr()?;
        self.need_sign(":")?;
        let no = self.expr()?;
        Ok(Expr::Condition(Box::new(condition), Box::new(yes), Box::new(no)))
    }

    fn coalesce(&mut self) -> Result<Expr, SqlError> {
        let left = self.any()?;
        if !self.sign("??") {
            return Ok(left);
        }
        let right = self.deeper(Self::coalesce)?;
        Ok(Expr::Coalesce(Box::new(left), Box::new(right)))
    }

    fn any(&mut self) -> Result<Expr, SqlError> {
        let mut items = vec![self.all()?];
        while self.word("or") {
            items.push(self.all()?);
        }
        Ok(one_or(items, Expr::Any))
    }

    fn all(&mut self) -> Result<Expr, SqlError> {
        let mut items = vec![self.binary(2)?];
        while self.word("and") {
            items.push(self.binary(2)?);
        }
        Ok(one_or(items, Expr::All))
    }

    /// The operator that stands here, with its precedence.
    fn operator(&self) -> Option<(u8, Binary)> {
        Some(match self.peek() {
            Token::Sign("=") => (3, Binary::Equal),
            Token::Sign("!=" | "<>") => (3, Binary::NotEqual),
            Token::Sign("<") => (4, Binary::Less),
            Token::Sign("<=") => (4, Binary::LessOrEqual),
            Token::Sign(">") => (4, Binary::Greater),
            Token::Sign(">=") => (4, Binary::GreaterOrEqual),
            Token::Sign("||") => (5, Binary::Concat),
            Token::Sign("|") => (6, Binary::BitOr),
            Token::Sign("^") => (7, Binary::BitXor),
            Token::Sign("&") => (8, Binary::BitAnd),
            Token::Sign("<<") => (9, Binary::ShiftLeft),
            Token::Sign(">>") => (9, Binary::ShiftRight),
            Token::Sign(">>>") => (9, Binary::ShiftRightZero),
            Token::Sign("+") => (10, Binary::Add),
            Token::Sign("-") => (10, Binary::Subtract),
            Token::Sign("*") => (11, Binary::Multiply),
            Token::Sign("/") => (11, Binary::Divide),
            Token::Sign("%") => (11, Binary::Modulo),
            _ => return None,
        })
    }

    fn binary(&mut self, least: u8) -> Result<Expr, SqlError> {
        let mut left = if least <= 2 && self.word("not") {
            let of = self.deeper(|parser| parser.binary(2))?;
            Expr::Unary(Unary::Not, Box::new(of))
        } else {
            self.unary()?
        };
        for _ in 0..MAX_OPERATORS {
            if least <= 3
                && let Some(tested) = self.tested(&left)?
            {
                left = tested;
                continue;
            }
            let Some((precedence, operator)) = self.operator().filter(|(precedence, _)| *precedence >= least) else {
                return Ok(left);
            };
            self.at += 1;
            let right = self.deeper(|parser| parser.binary(precedence + 1))?;
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
        Err(invalid("too many operators in a row"))
    }

    /// `[NOT] BETWEEN`, `[NOT] IN`, `[NOT] LIKE`
    fn tested(&mut self, of: &Expr) -> Result<Option<Expr>, SqlError> {
        let at = self.at;
        let not = self.word("not");
        let of = Box::new(of.clone());
        let tested = if self.word("between") {
            let low = self.deeper(|parser| parser.binary(5))?;
            self.need_word("and")?;
            let high = self.deeper(|parser| parser.binary(5))?;
            Expr::Between(of, Box::new(low), Box::new(high))
        } else if self.word("in") {
            self.need_sign("(")?;
            if self.is_word("select") {
                return Err(SqlError::Unsupported("IN (SELECT ...)".into()));
            }
            let items = self.list(Self::expr)?;
            self.need_sign(")")?;
            Expr::In(of, items)
        } else if self.word("like") {
            let pattern = self.deeper(|parser| parser.binary(5))?;
            let mut escape = None;
            if self.word("escape") {
                escape = match self.peek() {
                    Token::Text(text) if text.chars().count() == 1 => text.chars().next(),
                    _ => return Err(self.unexpected("one character in quotes")),
                };
                self.at += 1;
            }
            Expr::Like(of, Box::new(pattern), escape)
        } else {
            self.at = at;
            return Ok(None);
        };
        Ok(Some(if not { Expr::Unary(Unary::Not, Box::new(tested)) } else { tested }))
    }

    fn unary(&mut self) -> Result<Expr, SqlError> {
        for (sign, operator) in [("-", Unary::Minus), ("+", Unary::Plus), ("~", Unary::BitNot)] {
            if self.sign(sign) {
                let of = self.deeper(Self::unary)?;
                return Ok(match (operator, of) {
                    (Unary::Minus, Expr::Literal(Value::Number(number))) => Expr::Literal(negative(&number)),
                    (operator, of) => Expr::Unary(operator, Box::new(of)),
                });
            }
        }
        if self.word("not") {
            let of = self.deeper(Self::unary)?;
            return Ok(Expr::Unary(Unary::Not, Box::new(of)));
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr, SqlError> {
        let token = self.peek().clone();
        self.at += 1;
        let expr = match token {
            Token::Text(text) => Expr::Literal(text.into()),
            Token::Number(number) => Expr::Literal(number),
            Token::Parameter(name) => Expr::Parameter(name),
            Token::Sign("(") if self.is_word("select") => {
                let query = self.query()?;
                self.need_sign(")")?;
                Expr::Query(Box::new(query))
            }
            Token::Sign("(") => {
                let expr = self.expr()?;
                self.need_sign(")")?;
                expr
            }
            Token::Sign("[") => {
                let items = if matches!(self.peek(), Token::Sign("]")) { Vec::new() } else { self.list(Self::expr)? };
                self.need_sign("]")?;
                Expr::Array(items)
            }
            Token::Sign("{") => self.object()?,
            Token::Word(word) => self.named(word)?,
            Token::Sign(_) | Token::End => {
                self.at -= 1;
                return Err(self.unexpected("an expression"));
            }
        };
        self.members(expr)
    }

    fn object(&mut self) -> Result<Expr, SqlError> {
        let mut members = Vec::new();
        while !self.sign("}") {
            if !members.is_empty() {
                self.need_sign(",")?;
            }
            let name = match self.peek().clone() {
                Token::Text(text) => {
                    self.at += 1;
                    text
                }
                _ => self.identifier()?,
            };
            self.need_sign(":")?;
            members.push((name, self.expr()?));
        }
        Ok(Expr::Object(members))
    }

    fn named(&mut self, word: String) -> Result<Expr, SqlError> {
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "true" => return Ok(Expr::Literal(true.into())),
            "false" => return Ok(Expr::Literal(false.into())),
            "null" => return Ok(Expr::Literal(Value::Null)),
            "undefined" => return Ok(Expr::Undefined),
            "udf" if matches!(self.peek(), Token::Sign(".")) => {
                return Err(SqlError::Unsupported("user-defined functions".into()));
            }
            "exists" | "array" if matches!(self.peek(), Token::Sign("(")) => {
                self.at += 1;
                let query = Box::new(self.query()?);
                self.need_sign(")")?;
                return Ok(if lower == "exists" { Expr::Exists(query) } else { Expr::ArrayOf(query) });
            }
            _ => {}
        }
        if self.sign("(") {
            if self.is_word("select") {
                return Err(SqlError::Unsupported(format!("{word}(SELECT ...)")));
            }
            let arguments = if matches!(self.peek(), Token::Sign(")")) { Vec::new() } else { self.list(Self::expr)? };
            self.need_sign(")")?;
            let name = word.to_ascii_uppercase();
            functions::check(&name, arguments.len())?;
            return Ok(Expr::Call(name, arguments));
        }
        if NO_ALIAS.contains(&lower.as_str()) {
            self.at -= 1;
            return Err(self.unexpected("an expression"));
        }
        Ok(Expr::Name(word))
    }

    fn members(&mut self, mut of: Expr) -> Result<Expr, SqlError> {
        for _ in 0..MAX_OPERATORS {
            if self.sign(".") {
                let name = self.identifier()?;
                of = of.member(&name);
            } else if self.sign("[") {
                let index = self.expr()?;
                self.need_sign("]")?;
                of = Expr::Member(Box::new(of), Box::new(index));
            } else {
                return Ok(of);
            }
        }
        Err(invalid("a path is too long"))
    }
}

fn one_or(mut items: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
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

fn negative(number: &serde_json::Number) -> Value {
    match number.as_i64().and_then(i64::checked_neg) {
        Some(whole) if whole != 0 => whole.into(),
        _ => number.as_f64().and_then(|value| number_of(-value)).unwrap_or_default(),
    }
}

//! Parses a predicate's text into the tree that is evaluated.

use serde_json::Value;

use super::{
    evaluate::{Evaluation, Unsupported},
    tokens::{Token, TokenKind, unquoted},
};

#[derive(Debug)]
pub(super) enum Node {
    Value(Evaluation),
    Document,
    Member(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Minus(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    In(Box<Node>, Vec<Node>),
    Between(Box<Node>, Box<Node>, Box<Node>),
    Choice(Box<Node>, Box<Node>, Box<Node>),
    Call(PredicateFunction, Vec<Node>),
    Array(Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    Coalesce,
    Concat,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PredicateFunction {
    IsDefined,
    IsType(&'static str),
    StartsWith,
    EndsWith,
    Contains,
    StringEquals,
    Lower,
    Upper,
    Trim,
    Length,
    ArrayLength,
    ArrayContains,
    Abs,
    Floor,
    Ceiling,
    Round,
    Concat,
    Left,
    Right,
    Substring,
    IndexOf,
    Replace,
}

const FUNCTIONS: [(&str, PredicateFunction); 29] = [
    ("IS_DEFINED", PredicateFunction::IsDefined),
    ("IS_NULL", PredicateFunction::IsType("null")),
    ("IS_BOOL", PredicateFunction::IsType("bool")),
    ("IS_NUMBER", PredicateFunction::IsType("number")),
    ("IS_STRING", PredicateFunction::IsType("string")),
    ("IS_ARRAY", PredicateFunction::IsType("array")),
    ("IS_OBJECT", PredicateFunction::IsType("object")),
    ("IS_PRIMITIVE", PredicateFunction::IsType("primitive")),
    ("STARTSWITH", PredicateFunction::StartsWith),
    ("ENDSWITH", PredicateFunction::EndsWith),
    ("CONTAINS", PredicateFunction::Contains),
    ("STRINGEQUALS", PredicateFunction::StringEquals),
    ("STRING_EQUALS", PredicateFunction::StringEquals),
    ("LOWER", PredicateFunction::Lower),
    ("UPPER", PredicateFunction::Upper),
    ("TRIM", PredicateFunction::Trim),
    ("LENGTH", PredicateFunction::Length),
    ("ARRAY_LENGTH", PredicateFunction::ArrayLength),
    ("ARRAY_CONTAINS", PredicateFunction::ArrayContains),
    ("ABS", PredicateFunction::Abs),
    ("FLOOR", PredicateFunction::Floor),
    ("CEILING", PredicateFunction::Ceiling),
    ("ROUND", PredicateFunction::Round),
    ("CONCAT", PredicateFunction::Concat),
    ("LEFT", PredicateFunction::Left),
    ("RIGHT", PredicateFunction::Right),
    ("SUBSTRING", PredicateFunction::Substring),
    ("INDEX_OF", PredicateFunction::IndexOf),
    ("REPLACE", PredicateFunction::Replace),
];

/// The longest predicate: each operator in a row adds a level.
pub(super) const MOST_TOKENS: usize = 2000;
/// The deepest nesting of a predicate.
const DEPTH: usize = 64;

pub(super) struct Parser<'a, 'p> {
    pub(super) tokens: &'a [Token<'a>],
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) params: &'a dyn Fn(&str) -> Option<&'p Value>,
}

impl<'a> Parser<'a, '_> {
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn is(&self, word: &str) -> bool {
        self.peek().is_some_and(|token| token.kind != TokenKind::Text && token.text.eq_ignore_ascii_case(word))
    }

    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.is(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), Unsupported> {
        if self.take(word) {
            return Ok(());
        }
        Err(self.odd())
    }

    fn odd(&self) -> Unsupported {
        Unsupported(
            self.peek()
                .map_or_else(|| "a predicate that ends too early".to_owned(), |token| format!("{:?}", token.text)),
        )
    }

    fn operator(&self) -> Option<(Operator, u8)> {
        let token = self.peek().filter(|token| matches!(token.kind, TokenKind::Sign | TokenKind::Name))?;
        Some(match token.text.to_ascii_uppercase().as_str() {
            "??" => (Operator::Coalesce, 2),
            "OR" => (Operator::Or, 3),
            "AND" => (Operator::And, 4),
            "=" => (Operator::Equal, 6),
            "!=" | "<>" => (Operator::Unequal, 6),
            "<" => (Operator::Less, 6),
            "<=" => (Operator::LessOrEqual, 6),
            ">" => (Operator::Greater, 6),
            ">=" => (Operator::GreaterOrEqual, 6),
            "LIKE" => (Operator::Like, 6),
            "||" => (Operator::Concat, 7),
            "+" => (Operator::Add, 8),
            "-" => (Operator::Subtract, 8),
            "*" => (Operator::Multiply, 9),
            "/" => (Operator::Divide, 9),
            "%" => (Operator::Remainder, 9),
            _ => return None,
        })
    }

    pub(super) fn expression(&mut self, least: u8) -> Result<Node, Unsupported> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Unsupported("an expression nested so deeply".into()));
        }
        let mut left = self.unary(least)?;
        loop {
            let negated = self.is("NOT");
            if negated {
                self.at += 1;
            }
            if least <= 5 && self.take("IN") {
                self.expect("(")?;
                let list = self.list(")")?;
                left = negate(negated, Node::In(Box::new(left), list));
            } else if least <= 5 && self.take("BETWEEN") {
                let low = self.expression(7)?;
                self.expect("AND")?;
                let high = self.expression(7)?;
                left = negate(negated, Node::Between(Box::new(left), Box::new(low), Box::new(high)));
            } else if negated && self.take("LIKE") {
                let right = self.expression(7)?;
                left = negate(true, Node::Binary(Operator::Like, Box::new(left), Box::new(right)));
            } else if negated {
                return Err(self.odd());
            } else if least <= 1 && self.take("?") {
                let yes = self.expression(1)?;
                self.expect(":")?;
                let no = self.expression(1)?;
                left = Node::Choice(Box::new(left), Box::new(yes), Box::new(no));
            } else if let Some((op, strength)) = self.operator().filter(|(_, strength)| *strength >= least) {
                self.at += 1;
                let right = self.expression(strength + 1)?;
                if op == Operator::Like && self.is("ESCAPE") {
                    return Err(Unsupported("LIKE with ESCAPE".into()));
                }
                left = Node::Binary(op, Box::new(left), Box::new(right));
            } else {
                break;
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self, least: u8) -> Result<Node, Unsupported> {
        if self.is("NOT") {
            // NOT binds weaker than a comparison; after an operator that binds stronger it is not an expression.
            if least > 5 {
                return Err(self.odd());
            }
            self.at += 1;
            return Ok(Node::Not(Box::new(self.expression(5)?)));
        }
        if self.take("-") {
            return Ok(Node::Minus(Box::new(self.expression(10)?)));
        }
        if self.take("+") {
            return self.expression(10);
        }
        let mut node = self.primary()?;
        loop {
            if self.take(".") {
                let name = self.peek().filter(|token| token.kind == TokenKind::Name).ok_or_else(|| self.odd())?;
                self.at += 1;
                node = Node::Member(Box::new(node), Box::new(Node::Value(Some(name.text.into()))));
            } else if self.take("[") {
                let index = self.expression(0)?;
                self.expect("]")?;
                node = Node::Member(Box::new(node), Box::new(index));
            } else {
                return Ok(node);
            }
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Node>, Unsupported> {
        let mut list = Vec::new();
        if self.take(end) {
            return Ok(list);
        }
        loop {
            list.push(self.expression(0)?);
            if self.take(end) {
                return Ok(list);
            }
            self.expect(",")?;
        }
    }

    fn primary(&mut self) -> Result<Node, Unsupported> {
        let Some(token) = self.peek() else { return Err(self.odd()) };
        let value = match token.kind {
            TokenKind::Text => Some(Value::String(unquoted(token.text).ok_or_else(|| self.odd())?)),
            TokenKind::Number => Some(serde_json::from_str(token.text).map_err(|_| self.odd())?),
            TokenKind::Param => match (self.params)(token.text) {
                Some(value) => Some(value.clone()),
                None => return Err(Unsupported(format!("{} without a value", token.text))),
            },
            TokenKind::Sign => {
                if self.take("(") {
                    let inner = self.expression(0)?;
                    self.expect(")")?;
                    return Ok(inner);
                }
                if self.take("[") {
                    return Ok(Node::Array(self.list("]")?));
                }
                return Err(self.odd());
            }
            TokenKind::Name => match token.text {
                "c" => {
                    self.at += 1;
                    return Ok(Node::Document);
                }
                text if text.eq_ignore_ascii_case("true") => Some(true.into()),
                text if text.eq_ignore_ascii_case("false") => Some(false.into()),
                text if text.eq_ignore_ascii_case("null") => Some(Value::Null),
                text if text.eq_ignore_ascii_case("undefined") => None,
                text => {
                    let function = FUNCTIONS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
                    let Some((_, function)) = function else { return Err(self.odd()) };
                    self.at += 1;
                    self.expect("(")?;
                    return Ok(Node::Call(*function, self.list(")")?));
                }
            },
        };
        self.at += 1;
        Ok(Node::Value(value))
    }
}

fn negate(negated: bool, node: Node) -> Node {
    if negated { Node::Not(Box::new(node)) } else { node }
}

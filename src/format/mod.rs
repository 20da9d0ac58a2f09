//! How data is written: in columns for people, as JSON or CSV for programs. The destination is decided elsewhere.
//!
//! A format is a contract: `json` is one array (a command's summary: one object), `jsonl` one object a line, `csv` has
//! a header line, and `table` is for people: ruled on a terminal, plain aligned columns when piped.

mod documents;
mod rows;
mod texts;

use std::{
    borrow::Cow,
    io::{self, Write},
};

use clap::ValueEnum;
use serde_json::Value;

use self::rows::{cell, csv_line, plain};
pub use self::{
    documents::DocumentPrinter,
    rows::{Cell, Look, Rows},
    texts::{differences, document, object, shell_word},
};
use crate::figures::number;

/// The output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the output cannot be written")]
pub struct NotWritten(#[from] pub io::Error);

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated, with a header line
    Csv,
}

/// Text without control characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default())
        } else {
            shown.push(c)
        }
        shown
    }))
}

/// Writes a summary as named figures: lines for people, one object for programs.
///
/// # Errors
/// When it cannot be written.
pub fn summary(out: &mut impl Write, format: Format, figures: &[(&str, Value)]) -> io::Result<()> {
    match format {
        Format::Table => {
            let width = figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            figures.iter().try_for_each(|(name, value)| {
                let value = value.as_u64().map_or_else(|| cell(value), number);
                writeln!(out, "{name:width$}  {value}")
            })
        }
        Format::Json | Format::Jsonl => {
            let object: serde_json::Map<_, _> = figures.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            writeln!(out, "{}", Value::Object(object))
        }
        Format::Csv => {
            csv_line(out, &figures.iter().map(|(k, _)| (*k).to_owned()).collect::<Vec<_>>())?;
            csv_line(out, &figures.iter().map(|(_, v)| plain(v)).collect::<Vec<_>>())
        }
    }
}

/// A number rounded to one decimal, as summaries show RU and seconds.
pub fn tenths(number: f64) -> Value {
    Value::from((number * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use serde_json::value::RawValue;

    use super::{rows::*, texts::*, *};

    #[test]
    fn a_long_table_is_written_in_parts_under_one_header_with_columns_that_stay_aligned() {
        let mut out = Vec::new();
        let mut rows = Rows::new(&mut out, Format::Table, Look::Plain, &["name", "n"]);
        rows.push(&[json!("the widest of all"), json!(0)]).unwrap();
        for n in 1..=2 * ALIGNED {
            rows.push(&[json!("é"), json!(n)]).unwrap();
            assert!(rows.table.len() < ALIGNED);
        }
        rows.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        assert_eq!(lines.len(), 2 * ALIGNED + 2);
        assert!(lines.iter().all(|line| line[17..19] == [' ', ' '] && line[19] != ' '), "{text}");
        assert_eq!(text.matches("name").count(), 1);
    }

    fn rows(format: Format, look: Look, count: usize) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::new(&mut out, format, look, &["id", "n", "note"]);
        let data =
            [vec![json!("a"), json!(1.5), json!(null)], vec![json!("b\u{1b}[2J"), json!({"x": 1}), json!("q\"x, y")]];
        for row in data.iter().take(count) {
            rows.push(row).unwrap();
        }
        rows.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_written_in_every_format() {
        insta::assert_snapshot!(rows(Format::Table, Look::Plain, 2), @r#"
        id          n        note
        a           1.5
        b\u{1b}[2J  {"x":1}  q"x, y
        "#);
        insta::assert_snapshot!(rows(Format::Json, Look::Plain, 2), @r#"
        [
        {"id":"a","n":1.5,"note":null},
        {"id":"b\u001b[2J","n":{"x":1},"note":"q\"x, y"}
        ]
        "#);
        assert_eq!(rows(Format::Jsonl, Look::Plain, 1), "{\"id\":\"a\",\"n\":1.5,\"note\":null}\n");
        assert_eq!(
            rows(Format::Csv, Look::Plain, 2),
            "id,n,note\na,1.5,\nb\u{1b}[2J,\"{\"\"x\"\":1}\",\"q\"\"x, y\"\n"
        );
    }

    #[test]
    fn text_of_a_document_is_written_as_it_is_and_what_is_not_there_left_out() {
        let text = |format| {
            let mut out = Vec::new();
            let mut rows = Rows::new(&mut out, format, Look::Plain, &["n", "before", "after"]);
            rows.push_cells(&[1.into(), Cell::Json(None), Cell::Json(Some("12345678901234567890.10"))]).unwrap();
            rows.push_cells(&[2.into(), Cell::Json(Some("null")), Cell::Json(Some("\"1\""))]).unwrap();
            rows.finish().unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(Format::Jsonl),
            "{\"n\":1,\"after\":12345678901234567890.10}\n{\"n\":2,\"before\":null,\"after\":\"1\"}\n"
        );
        assert_eq!(text(Format::Csv), "n,before,after\n1,,12345678901234567890.10\n2,null,\"\"\"1\"\"\"\n");
    }

    #[test]
    fn a_document_is_indented_without_touching_its_values() {
        let text = "{ \"id\" : \"a, {b}: \\\" \\\\\",\r\n\"n\":1.10,\"o\":{},\"l\":[ ],\"m\":[1,{\"x\":1e400}]}";
        insta::assert_snapshot!(pretty(text), @r#"
        {
          "id": "a, {b}: \" \\",
          "n": 1.10,
          "o": {},
          "l": [],
          "m": [
            1,
            {
              "x": 1e400
            }
          ]
        }
        "#);
    }

    #[test]
    fn fields_that_differ_are_a_line_each() {
        let before = r#"{"city":"Davidson","n":1.10,"gone":1,"o":{"deep":true}}"#;
        let after = "{\"city\":\"Ruined\u{7f}\",\"n\":1.1,\"o\":{\"deep\":false},\"new\":[1]}";
        let found = crate::change::diff::between(before, after);
        insta::assert_snapshot!(difference_lines(&found, false, None), @r#"
        ~ /city    "Davidson" -> "Ruined\u{7f}"
        - /gone    1
        ~ /o/deep  true -> false
        + /new     [1]
        "#);
        let coloured = difference_lines(&found[..1], true, Some(6));
        assert_eq!(coloured, "\u{1b}[33m~ /city  \"Davi… -> \"Ruin…\u{1b}[0m\n");
    }

    #[test]
    fn words_are_quoted_for_a_shell_when_they_must_be() {
        assert_eq!(shell_word("A__B=orders"), "A__B=orders");
        assert_eq!(shell_word("A=two words"), "'A=two words'");
        assert_eq!(shell_word("A=it's"), "'A=it'\\''s'");
    }

    #[test]
    fn no_rows_are_still_valid_output() {
        assert_eq!(rows(Format::Table, Look::Terminal, 0), "");
        assert_eq!(rows(Format::Json, Look::Plain, 0), "[]\n");
        assert_eq!(rows(Format::Jsonl, Look::Plain, 0), "");
        assert_eq!(rows(Format::Csv, Look::Plain, 0), "id,n,note\n");
    }

    fn documents(format: Format, texts: &[&str]) -> String {
        let mut out = Vec::new();
        let mut documents = DocumentPrinter::new(&mut out, format, Look::Plain);
        for text in texts {
            documents.push(RawValue::from_string((*text).into()).unwrap()).unwrap();
        }
        documents.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn documents_are_written_as_stored() {
        let texts = [
            r#"{"n":1.10,"id":"a","_rid":"r","_ts":7}"#,
            "{\"id\":\"b\",\n\"big\":12345678901234567890.0,\"o\":{\"x\": [1]}}",
        ];
        assert_eq!(documents(Format::Json, &texts), format!("[\n{},\n{}\n]\n", texts[0], texts[1]));
        assert_eq!(documents(Format::Jsonl, &texts), format!("{}\n{}\n", texts[0], texts[1].replace('\n', " ")));
        insta::assert_snapshot!(documents(Format::Table, &texts), @r#"
        id  n     big                     o           _ts
        a   1.10                                      7
        b         12345678901234567890.0  {"x": [1]}
        "#);
        assert_eq!(documents(Format::Table, &["\"x\"", "3"]), "value\nx\n3\n");
        assert_eq!(documents(Format::Table, &[]), "");
        assert_eq!(documents(Format::Csv, &[r#"{"id":"a,b"}"#]), "id\n\"a,b\"\n");
    }

    #[test]
    fn a_summary_is_lines_for_people_and_one_object_for_programs() {
        let text = |format| {
            let mut out = Vec::new();
            summary(&mut out, format, &[("written", json!(5000)), ("ru", tenths(61.44))]).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Format::Table), "written  5,000\nru       61.4\n");
        assert_eq!(text(Format::Json), "{\"written\":5000,\"ru\":61.4}\n");
        assert_eq!(text(Format::Csv), "written,ru\n5000,61.4\n");
    }

    #[test]
    fn a_terminal_gets_what_fits() {
        assert_eq!(fit(&[5, 10], 80), [5, 10]);
        assert_eq!(fit(&[5, 90], 40), [5, 31]);
        assert_eq!(fit(&[30, 60], 60), [30, 26]);
        assert_eq!(fit(&[12; 10], 60), [12; 4]);
        assert_eq!(fit(&[500], 3), [12]);
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }
}

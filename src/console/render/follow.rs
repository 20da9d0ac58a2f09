//! The output of `follow` at its end.

use crate::{
    console::{Exit, Ui},
    figures::{count_of, number},
    follow::{Ended, Report},
};

/// Prints how it ended.
pub(crate) fn show(ui: &Ui, report: &Report) -> Exit {
    let how = match report.ended {
        Ended::CaughtUp => "caught up",
        Ended::Stopped => "stopped",
        Ended::NotStarted => return Exit::Done,
    };
    let (read, passed_on) = (count_of(report.read, "change"), number(report.passed_on));
    let mut text = format!("{how}: {read} read, {passed_on} passed on");
    if report.dead_letters > 0 {
        text.push_str(&format!(", {}", count_of(report.dead_letters, "dead letter")));
    }
    if report.unanswered > 0 {
        text.push_str(&format!(", {} without an answer of the filter", number(report.unanswered)));
    }
    ui.note(&format!("{text}, {:.1} RU, {:.1} s", report.ru, report.seconds));
    if report.dead_letters == 0 { Exit::Done } else { Exit::Incomplete }
}

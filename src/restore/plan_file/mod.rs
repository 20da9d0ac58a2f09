//! The plan as a file: a line with its head, a line for each step, and a trailer with their count and a checksum. Only
//! the head and the totals are in memory, however many documents there are.

mod draft;
mod error;
mod head;
mod intake;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use serde::{
    Deserialize, Serialize, Serializer,
    ser::{Error as _, SerializeSeq as _},
};

pub(super) use self::intake::Intake;
pub use self::{
    draft::Draft,
    error::BadPlan,
    head::{Pair, PlanHead, RevertedWrites},
};
use super::plan::{Action, PlanTarget, Step};
use crate::change::key::{ItemKey, PartitionKey};

/// The longest line that is accepted: a step names a few paths and notes; the text of a document, of 2 MB at most, is a
/// JSON string.
const MAX_LINE: u64 = 8 << 20;

/// Sums over the steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// All of them.
    pub steps: usize,
    /// Documents that would be written.
    pub writes: usize,
    restore: usize,
    recreate: usize,
    delete: usize,
    keep: usize,
    unknown: usize,
    /// Documents with fields in conflict.
    pub conflicts: usize,
    /// Request units that the writing steps are expected to cost, at published prices without index terms.
    pub forecast: f64,
}

impl Totals {
    fn add(&mut self, step: &Step) {
        self.steps += 1;
        self.conflicts += usize::from(!step.conflicts.is_empty());
        if step.action.writes() {
            self.writes += 1;
            self.forecast += step.ru;
        }
        *match step.action {
            Action::Restore => &mut self.restore,
            Action::Recreate => &mut self.recreate,
            Action::Delete => &mut self.delete,
            Action::Keep => &mut self.keep,
            Action::Unknown => &mut self.unknown,
        } += 1;
    }

    /// How many steps have this action.
    pub fn count(&self, action: Action) -> usize {
        match action {
            Action::Restore => self.restore,
            Action::Recreate => self.recreate,
            Action::Delete => self.delete,
            Action::Keep => self.keep,
            Action::Unknown => self.unknown,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct HeadLine<T> {
    #[serde(rename = "_plan")]
    plan: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndLine {
    #[serde(rename = "_end")]
    pub(crate) end: PlanTrailer,
}

/// What tells whose a line of a plan is, or an outcome.
#[derive(Deserialize)]
pub(crate) struct ItemLine {
    id: String,
    pk: serde_json::Value,
}

impl ItemLine {
    /// Whether it is about one of these items.
    pub(crate) fn is_about(&self, items: &[ItemKey]) -> bool {
        // Most lines are about other ids: their keys are not read.
        let mut same_id = items.iter().filter(|item| item.id == self.id).peekable();
        same_id.peek().is_some()
            && PartitionKey::parse_json(&self.pk).is_ok_and(|key| same_id.any(|item| item.partition_key == key))
    }

    /// Whether it is about an item with one of these digests.
    pub(crate) fn has_digest(&self, digests: &[String]) -> bool {
        !digests.is_empty()
            && ItemKey::parse_json(&self.id, &self.pk).is_ok_and(|item| digests.contains(&item.digest()))
    }
}

/// The trailer of a plan: the number of steps, and the checksum of all bytes before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlanTrailer {
    pub(crate) steps: usize,
    pub(crate) sha256: String,
}

/// The whole plan: computed once, shown, confirmed, and then applied exactly as it is.
#[derive(Debug)]
pub struct Plan {
    /// Its head.
    pub head: PlanHead,
    /// The totals.
    pub totals: Totals,
    /// Its text, in an unnamed file: nobody else can change it between confirmation and use.
    file: File,
    size: u64,
}

impl Plan {
    /// The steps, one after another.
    pub fn steps(&self) -> impl Iterator<Item = io::Result<Step>> + '_ {
        let lines = BufReader::new(self.text()).lines().skip(1).take(self.totals.steps);
        lines.map(|line| serde_json::from_str(&line?).map_err(io::Error::from))
    }

    /// The steps that write.
    pub fn writing_steps(&self) -> impl Iterator<Item = io::Result<Step>> + '_ {
        self.steps().filter(|step| step.as_ref().map_or(true, |s| s.action.writes()))
    }

    /// The plan's file: its text with a checksum, so that a change is noticed.
    pub fn text(&self) -> impl Read + '_ {
        At { file: &self.file, offset: 0 }
    }

    /// Bytes of the text.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads a whole plan file, before any of it is used.
    ///
    /// # Errors
    /// When it is not a plan, has another format, was changed, or was made for other containers; each error says what
    /// is wrong.
    pub fn read(text: impl Read, place: Option<&PlanTarget>) -> Result<Self, BadPlan> {
        let mut intake = Intake::new().map_err(BadPlan::Copy)?;
        each_line(text, |line| intake.line(line, place))?;
        intake.finish()
    }
}

/// Reads a plan's file line by line.
///
/// # Errors
/// When it cannot be read, a line is too long, or `each` fails.
pub(super) fn each_line(text: impl Read, mut each: impl FnMut(&str) -> Result<(), BadPlan>) -> Result<(), BadPlan> {
    let mut text = BufReader::new(text);
    let mut line = String::new();
    loop {
        line.clear();
        match text.by_ref().take(MAX_LINE).read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) if line.ends_with('\n') => each(line.trim_end_matches('\n'))?,
            Ok(n) if n as u64 == MAX_LINE => return Err(BadPlan::LongLine(MAX_LINE)),
            // Without a line end: it was cut off, or an editor removed it; only the trailer may lack one.
            Ok(_) => each(&line)?,
            Err(e) => return Err(BadPlan::Read(e)),
        }
    }
}

/// The same content as one object, for programs.
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            #[serde(flatten)]
            head: &'a PlanHead,
            steps: Steps<'a>,
        }
        struct Steps<'a>(&'a Plan);
        impl Serialize for Steps<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut steps = serializer.serialize_seq(Some(self.0.totals.steps))?;
                for step in self.0.steps() {
                    steps.serialize_element(&step.map_err(S::Error::custom)?)?;
                }
                steps.end()
            }
        }
        View { head: &self.head, steps: Steps(self) }.serialize(serializer)
    }
}

/// Reads a file from its beginning without moving its cursor, so that two readers do not disturb each other.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.offset)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(self.file, buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{draft::SORTED, *};
    use crate::{
        change::record,
        restore::{apply::ApplyOptions, plan::PLAN_VERSION},
    };

    fn place() -> PlanTarget {
        PlanTarget {
            account: "https://a/".into(),
            database: "dev".into(),
            source: "events".into(),
            changes: "changes".into(),
            target: "events".into(),
        }
    }

    fn step(id: &str, action: Action) -> Step {
        Step {
            changed: vec!["/a".into()],
            ru: 2.0,
            notes: vec!["line\nend".into()],
            ..Step::new(id, serde_json::json!(["p"]), action)
        }
    }

    fn plan(steps: impl IntoIterator<Item = Step>) -> Plan {
        let manner = ApplyOptions { stamp: None, only: Vec::new() };
        let (v, id) = (PLAN_VERSION, "x".to_owned());
        let head = PlanHead {
            v,
            id,
            undoes: None,
            place: place(),
            at: Some(5),
            per_document: false,
            feed_range: None,
            archive: None,
            frontier: None,
            beyond: false,
            max_deletes: None,
            takes_back: None,
            fork: false,
            together: Vec::new(),
            made: 9,
            manner,
        };
        let mut draft = Draft::new(head).unwrap();
        steps.into_iter().for_each(|step| draft.push(step).unwrap());
        draft.seal().unwrap()
    }

    fn text(plan: &Plan) -> String {
        let mut text = String::new();
        plan.text().read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, plan.size());
        text
    }

    /// With the checksum that anybody can make.
    fn signed(lines: &str) -> String {
        let steps = lines.lines().count() - 1;
        let end = PlanTrailer { steps, sha256: record::hex(&Sha256::digest(lines.as_bytes())) };
        format!("{lines}{}\n", serde_json::to_string(&EndLine { end }).unwrap())
    }

    #[test]
    fn an_id_that_leads_out_of_the_journals_folder_is_none() {
        let text = text(&plan([]));
        let head = text.lines().next().unwrap();
        assert!(Plan::read(signed(&format!("{head}\n")).as_bytes(), None).is_ok());
        for id in ["../../x", "/etc/x", "a/b", "a\\\\b", "", ".", "a\\u0000b", &"x".repeat(65)] {
            for name in ["id", "undoes"] {
                let hostile = head.replace(r#""undoes":null"#, r#""undoes":"u""#);
                let old = if name == "id" { r#""id":"x""# } else { r#""undoes":"u""# };
                let hostile = hostile.replacen(old, &format!("\"{name}\":\"{id}\""), 1);
                assert_ne!(hostile, head);
                let error = Plan::read(signed(&format!("{hostile}\n")).as_bytes(), None).unwrap_err();
                assert!(error.to_string().contains("its id is not one"), "{id}: {error}");
            }
        }
    }

    #[test]
    fn a_plan_survives_its_file_and_no_edit_does() {
        let made = plan([step("b", Action::Restore), step("a", Action::Keep), step("c", Action::Delete)]);
        let text = text(&made);
        let read = Plan::read(text.as_bytes(), Some(&place())).unwrap();
        assert_eq!((&read.head, read.totals), (&made.head, made.totals));
        let ids: Vec<String> = read.steps().map(|s| s.unwrap().id).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(read.writing_steps().count(), 2);
        assert_eq!((read.totals.writes, read.totals.forecast), (2, 4.0));
        // An editor's final line end makes no difference, anything else does.
        assert!(Plan::read(text.trim_end().as_bytes(), None).is_ok());
        let lines: Vec<&str> = text.lines().collect();
        let without_step = [lines[0], lines[1], lines[2], lines[4]].join("\n");
        for (bad, says) in [
            (text.replace("\"b\"", "\"z\""), "edited"),
            (without_step, "edited"),
            (format!("{text}{}\n", lines[1]), "edited"),
            (lines[..4].join("\n"), "incomplete"),
            (text.replace("\"v\":2", "\"v\":1"), "plan format 1"),
            (format!("{{\"plan\":{{\"v\":1}},\"sha256\":\"\"}}\n{text}"), "plan format 1"),
            (text.replace("[\"p\"]", "[]"), "not a plan"),
            (String::new(), "empty"),
            ("hello".into(), "not a plan"),
            ("[]".into(), "not a plan"),
        ] {
            let error = Plan::read(bad.as_bytes(), Some(&place())).unwrap_err();
            assert!(error.to_string().contains(says), "{says}: {error}");
        }
        let other = PlanTarget { account: "https://b/".into(), ..place() };
        assert!(Plan::read(text.as_bytes(), Some(&other)).unwrap_err().to_string().contains("was made for https://a/"));
    }

    #[test]
    fn two_readers_do_not_disturb_each_other() {
        let plan = plan((0..50).map(|i| step(&format!("{i:02}"), Action::Restore)));
        let (mut a, mut b) = (plan.steps(), plan.steps());
        for i in 0..50 {
            assert_eq!(a.next().unwrap().unwrap().id, format!("{i:02}"));
            assert_eq!(b.next().unwrap().unwrap().id, format!("{i:02}"));
        }
        assert!(a.next().is_none());
    }

    #[test]
    fn a_long_plan_holds_every_step_once() {
        let many = SORTED + 5;
        let plan = plan((0..many).rev().map(|i| step(&i.to_string(), Action::Keep)));
        let mut ids: Vec<usize> = plan.steps().map(|s| s.unwrap().id.parse().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..many).collect::<Vec<_>>());
        assert_eq!(plan.totals.count(Action::Keep), many);
    }

    #[test]
    fn for_programs_it_is_one_object() {
        let plan = plan([step("a", Action::Restore)]);
        let value = serde_json::to_value(&plan).unwrap();
        assert_eq!((&value["id"], &value["steps"][0]["id"]), (&serde_json::json!("x"), &serde_json::json!("a")));
        assert_eq!(value["place"]["database"], "dev");
    }
}

//! `--sink`: parses where `follow` passes changes on to.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use super::{files, follow_args::FollowArgs};
use crate::{
    config::{BlobUrl, DeadLetterLocation, without_secrets},
    console::{CliError, Ui},
    follow::{Event, SinkTarget, pretty, sink::StreamSink},
};

/// One `--sink`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SinkArg {
    Changes,
    Stdout,
    File(PathBuf),
    Blob(BlobUrl),
}

impl FromStr for SinkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "changes" => Ok(Self::Changes),
            None if text == "stdout" => Ok(Self::Stdout),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(files::named(path.into())?)),
            Some(("blob", url)) => match DeadLetterLocation::parse("--sink blob", url, std::path::Path::new("")) {
                Ok(DeadLetterLocation::Blob(url)) => Ok(Self::Blob(url)),
                Ok(DeadLetterLocation::Directory(_)) => {
                    Err("write blob:https://<account>.blob.core.windows.net/<container>".into())
                }
                Err(e) => Err(format!("{}; {}", e.problem, e.fix)),
            },
            _ => Err("write changes, stdout, file:PATH or blob:URL".into()),
        }
    }
}

impl std::fmt::Display for SinkArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changes => f.write_str("changes"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Blob(url) => write!(f, "blob:{url}"),
        }
    }
}

/// The sinks that the flags name; the history when they name none. Parsed here and not by the argument parser, whose
/// message would quote a signature.
///
/// # Errors
/// When one is malformed, two write to one place, or a flag belongs to a sink that is not there.
pub(super) fn targets(ui: &Ui, args: &FollowArgs) -> Result<Vec<SinkTarget>, CliError> {
    let mut sinks = Vec::with_capacity(args.sinks.len().max(1));
    for text in &args.sinks {
        let sink: SinkArg = text.parse().map_err(|problem| {
            let shown = without_secrets(text);
            CliError::usage(format!("--sink {shown}: {problem}"), "such as --sink changes --sink file:events.jsonl")
        })?;
        if sinks.contains(&sink) {
            return Err(CliError::usage(format!("--sink {sink} is given twice"), "give each sink once"));
        }
        if let Some(same) = sinks.iter().find(|other| sink.writes_where(other)) {
            return Err(CliError::usage(
                format!("--sink {same} and --sink {sink} are the same place, which would have everything twice"),
                "give each place once",
            ));
        }
        sinks.push(sink);
    }
    if sinks.is_empty() {
        sinks.push(SinkArg::Changes);
    }
    if let Some(checkpoint) = &args.checkpoint_file
        && let Some(sink) = sinks.iter().find(|sink| sink.writes_where(&SinkArg::File(checkpoint.clone())))
    {
        return Err(CliError::usage(
            format!("--sink {sink} is the file of the checkpoint"),
            "name another one with --checkpoint-file",
        ));
    }
    for (flag, given, wanted) in [
        ("--pretty", args.pretty, sinks.contains(&SinkArg::Stdout)),
        ("--segments", args.segments, sinks.iter().any(|sink| matches!(sink, SinkArg::Blob(_)))),
    ] {
        if given && !wanted {
            let sink = if flag == "--pretty" { "stdout" } else { "blob:URL" };
            return Err(CliError::usage(
                format!("{flag} changes nothing without that sink"),
                format!("add --sink {sink}"),
            ));
        }
    }
    Ok(sinks.into_iter().map(|sink| sink.target(ui, args)).collect())
}

impl SinkArg {
    /// Whether it writes to the place of another one.
    fn writes_where(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Blob(one), Self::Blob(other)) => one.is_at(other),
            _ => self.file().zip(other.file()).is_some_and(|(one, other)| files::are_one(one, other)),
        }
    }

    /// The file that it writes to, if it does.
    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            // Output may be redirected to a file.
            Self::Stdout => Some(Path::new("/dev/stdout")),
            Self::Changes | Self::Blob(_) => None,
        }
    }

    fn target(self, ui: &Ui, args: &FollowArgs) -> SinkTarget {
        match self {
            Self::Changes => SinkTarget::Changes,
            Self::Stdout if args.pretty => {
                let coloured = ui.is_coloured();
                let render = move |event: &Event<'_>, out: &mut String| out.push_str(&pretty(event, coloured));
                SinkTarget::Stream(StreamSink::new(ui.stream(), Arc::new(render)))
            }
            Self::Stdout => {
                let render = |event: &Event<'_>, out: &mut String| {
                    event.push_line(out);
                    out.push('\n');
                };
                SinkTarget::Stream(StreamSink::new(ui.stream(), Arc::new(render)))
            }
            Self::File(path) => SinkTarget::File(path),
            Self::Blob(url) if args.segments => SinkTarget::Segments {
                url,
                bytes: (args.segment_mb as usize) << 20,
                age: Duration::from_secs(args.segment_seconds),
            },
            Self::Blob(url) => SinkTarget::Blobs(url),
        }
    }
}

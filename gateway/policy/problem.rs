//! What is wrong with a policy folder: file, line, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan,
};
use serde::Serialize;

use super::cases::CaseResult;
use crate::session::printable;

/// Width of a report, in columns: fits a terminal and a CI log.
const WIDTH: usize = 100;
/// Most problems shown at once: the first ones cause the rest.
const PROBLEMS_SHOWN: usize = 20;

/// Why a policy folder does not load. `Display` is the whole report.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read policies from {}: {}", printable(&path.display().to_string()), printable(why))]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// What the system or a bound says.
        why: String,
    },
    /// Files are there and wrong.
    #[error("{}", report(.0, GraphicalTheme::unicode_nocolor()))]
    Invalid(Vec<Problem>),
    /// The policies are valid and do not do what their own cases say.
    #[error("{}", cases_report(.0))]
    Untrue(Vec<CaseResult>),
}

impl PolicyError {
    /// The report, with colours for a terminal if asked for.
    pub fn report(&self, colour: bool) -> String {
        match self {
            Self::Invalid(problems) if colour => report(problems, GraphicalTheme::unicode()),
            _ => self.to_string(),
        }
    }

    /// All of it in one line, for logs.
    pub fn line(&self) -> String {
        let places: Vec<String> = match self {
            Self::Invalid(problems) => {
                problems.iter().take(PROBLEMS_SHOWN).map(|problem| problem.place().to_string()).collect()
            }
            other => other.to_string().lines().map(str::to_owned).collect(),
        };
        printable(&places.join("; "))
    }

    /// The single problems; none if the folder cannot be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            Self::Unreadable { .. } | Self::Untrue(_) => &[],
        }
    }
}

fn cases_report(failed: &[CaseResult]) -> String {
    let one = |case: &CaseResult| {
        format!("{}: {}: {}", case.file, case.name, case.failure.as_deref().unwrap_or_default())
    };
    let mut lines: Vec<String> = failed.iter().take(PROBLEMS_SHOWN).map(one).collect();
    if failed.len() > PROBLEMS_SHOWN {
        lines.push(format!("and {} more", failed.len() - PROBLEMS_SHOWN));
    }
    lines.join("\n")
}

fn report(problems: &[Problem], theme: GraphicalTheme) -> String {
    let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH);
    let mut text = String::new();
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        if handler.render_report(&mut text, problem).is_err() {
            text.push_str(&problem.to_string());
        }
    }
    if problems.len() > PROBLEMS_SHOWN {
        text.push_str(&format!("and {} more\n", problems.len() - PROBLEMS_SHOWN));
    }
    text
}

/// One thing wrong in one file.
#[derive(Debug)]
pub struct Problem {
    message: String,
    help: Option<String>,
    labels: Vec<LabeledSpan>,
    source: NamedSource<String>,
}

/// Where a problem begins and what to do, for machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, relative to the folder.
    pub file: String,
    /// From 1; absent if the whole file is meant.
    pub line: Option<usize>,
    /// From 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Place {
    /// `file:line:column: message`, as compilers write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            _ => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl Problem {
    /// A problem at one span of a file.
    pub(super) fn at(file: &File, span: impl Into<SourceSpan>, message: impl Into<String>) -> Self {
        let labels = vec![LabeledSpan::new_with_span(None, span)];
        Self { message: blanked(&message.into()), help: None, labels, source: file.source() }
    }

    /// A problem of a library, placed into the file it is about.
    pub(super) fn of(file: &File, inner: &dyn Diagnostic) -> Self {
        let label = |l: LabeledSpan| LabeledSpan::new_with_span(l.label().map(blanked), *l.inner());
        Self {
            message: blanked(&sentence(inner)),
            help: inner.help().map(|help| blanked(&help.to_string())),
            labels: inner.labels().map(|all| all.map(label).collect()).unwrap_or_default(),
            source: file.source(),
        }
    }

    /// The same with a word of help.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(blanked(&help.into()));
        self
    }

    /// File and offset, so that problems are told in reading order.
    pub(super) fn order(&self) -> (String, usize) {
        (self.source.name().to_owned(), self.labels.first().map_or(0, LabeledSpan::offset))
    }

    /// File, line and column.
    pub fn place(&self) -> Place {
        let offset = self.labels.first().map(LabeledSpan::offset);
        let before = offset.and_then(|offset| self.source.inner().get(..offset));
        let line_start = before.map(|text| text.rfind('\n').map_or(0, |newline| newline + 1));
        Place {
            file: self.source.name().to_owned(),
            line: before.map(|text| text.matches('\n').count() + 1),
            column: before
                .zip(line_start)
                .map(|(text, start)| text.get(start..).map_or(0, |line| line.chars().count()) + 1),
            message: self.message.clone(),
            help: self.help.clone(),
        }
    }
}

/// The error and its causes as one line.
///
/// Cedar's numbers of policies within a file are left out: the place says it.
fn sentence(error: &dyn Diagnostic) -> String {
    let text = with_causes(error);
    match text.strip_prefix("for policy `policy").and_then(|rest| rest.split_once("`, ")) {
        Some((_, without_number)) => without_number.to_owned(),
        None => text,
    }
}

/// The error and what it was caused by, each said once.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// A file of a policy folder.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the folder, with `/`.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl File {
    fn source(&self) -> NamedSource<String> {
        NamedSource::new(blanked(&self.name), blanked(&self.text))
    }
}

/// The text with control characters blanked, every offset unchanged.
///
/// A pull request must not reach the reviewer's terminal with an escape.
fn blanked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(std::iter::repeat_n('?', c.len_utf8())),
            c => shown.push(c),
        }
    }
    shown
}

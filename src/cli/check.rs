//! `pilotfish check`: everything that is wrong with a config, at once and in its place.

use std::io::{IsTerminal, Write};
use std::path::Path;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, Severity, SourceSpan,
};

use super::{ExitCode, probe};
use crate::config::{ConfigError, LoadError, Loaded, Warning, locate, mask};

/// Prints the warnings and a summary of a valid config; with `connect`, what its servers say too.
pub fn check(loaded: Loaded, connect: bool) -> ExitCode {
    let page = Page::new(&loaded.path, &loaded.text);
    let mut out = String::new();
    for warning in &loaded.warnings {
        page.add(&mut out, Finding::from(warning));
    }
    print(&mut std::io::stderr().lock(), &out);
    let summary = format!(
        "{}: ok, {}, {}\n",
        loaded.path.display(),
        plural(loaded.config.services.len(), "service"),
        plural(loaded.warnings.len(), "warning"),
    );
    print(&mut std::io::stdout().lock(), &summary);
    if connect {
        probe::probe(loaded)
    } else {
        ExitCode::Done
    }
}

/// Prints to stderr why there is no config.
pub fn explain(error: &LoadError) {
    let mut out = String::new();
    match error {
        LoadError::Invalid { path, text, errors } => {
            let page = Page::new(path, text);
            for error in errors {
                page.add(&mut out, Finding::from(error));
            }
            out += &format!("{}: {}\n", path.display(), plural(errors.len(), "error"));
        }
        LoadError::Unreadable { .. } | LoadError::NotFound { .. } => {
            out = format!("pilotfish: {error}\n");
        }
    }
    print(&mut std::io::stderr().lock(), &out);
}

fn print(to: &mut impl Write, text: &str) {
    // Nobody is left to tell when the other end of a pipe is gone.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// The file that the findings are about, and how to draw.
struct Page<'a> {
    path: &'a Path,
    text: &'a str,
    /// As `text`, with passwords blotted out: the lines around a mistake are printed.
    masked: String,
    pen: GraphicalReportHandler,
}

impl<'a> Page<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let pen = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .with_context_lines(1);
        Self {
            path,
            text,
            masked: mask::passwords(text),
            pen,
        }
    }

    /// One line that editors can jump to, then the picture.
    fn add(&self, out: &mut String, mut finding: Finding) {
        let end = self.text.len();
        finding.start = finding.start.min(end);
        finding.end = finding.end.clamp(finding.start, end);
        let (line, column) = locate(self.text, finding.start);
        let key = if finding.key.is_empty() {
            String::new()
        } else {
            format!("{}: ", finding.key)
        };
        let (path, word, message) = (self.path.display(), finding.word(), &finding.message);
        *out += &format!("{path}:{line}:{column}: {word}: {key}{message}\n");
        let picture = Picture {
            finding: &finding,
            source: &self.masked,
        };
        // It only fails when writing to the string does.
        let _ = self.pen.render_report(out, &picture);
        out.push('\n');
    }
}

/// An error or a warning.
struct Finding {
    severity: Severity,
    key: String,
    message: String,
    help: String,
    start: usize,
    end: usize,
}

impl Finding {
    fn word(&self) -> &'static str {
        match self.severity {
            Severity::Error => "error",
            Severity::Warning | Severity::Advice => "warning",
        }
    }
}

impl From<&ConfigError> for Finding {
    fn from(e: &ConfigError) -> Self {
        let ConfigError {
            key,
            message,
            help,
            span,
        } = e.clone();
        Self {
            severity: Severity::Error,
            key,
            message,
            help,
            start: span.start,
            end: span.end,
        }
    }
}

impl From<&Warning> for Finding {
    fn from(w: &Warning) -> Self {
        let Warning {
            key,
            message,
            help,
            span,
        } = w.clone();
        Self {
            severity: Severity::Warning,
            key,
            message,
            help,
            start: span.start,
            end: span.end,
        }
    }
}

struct Picture<'a> {
    finding: &'a Finding,
    source: &'a String,
}

impl std::fmt::Debug for Picture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.finding.message)
    }
}

impl std::fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.finding.message)
    }
}

impl std::error::Error for Picture<'_> {}

impl Diagnostic for Picture<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(self.finding.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        let help = &self.finding.help;
        (!help.is_empty()).then(|| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = SourceSpan::from(self.finding.start..self.finding.end);
        let label = if self.finding.key.is_empty() {
            "here"
        } else {
            &self.finding.key
        };
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(
            Some(label.to_owned()),
            span,
        ))))
    }
}

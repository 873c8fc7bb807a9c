//! The only part of `config` that looks outside: the file itself, and what it points at.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::secret::SecretSource;
use super::{Config, ConfigError, Warning, locate, read};
use crate::secret::Secret;

/// A config is written by hand; what is larger is something else.
const MOST_CONFIG: u64 = 1 << 20;
const MOST_SECRET: u64 = 64 << 10;

/// A config that was read from a file, and the text for what has to be said about it.
pub struct Loaded {
    pub path: PathBuf,
    pub text: String,
    pub config: Config,
    pub warnings: Vec<Warning>,
}

/// Without the text: it may have passwords in it.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("path", &self.path)
            .field("config", &self.config)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// Why a file gives no config.
#[derive(thiserror::Error)]
pub enum LoadError {
    #[error("there is no configuration; looked for it in {places}")]
    NotFound { places: String },
    #[error("cannot read {path}: {why}", path = path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error("{}", lines(path, text, errors))]
    Invalid {
        path: PathBuf,
        text: String,
        errors: Vec<ConfigError>,
    },
}

/// As for people, who are not shown the text either.
impl fmt::Debug for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoadError({self})")
    }
}

/// Reads the file and all secrets that it points at.
///
/// # Errors
/// The file cannot be read, or it has mistakes: all of them, and a secret that cannot be read is
/// one. Their `Display` is one `file:line:column: key: message` line each.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text = read_text(path)?;
    match read(&text, &System) {
        Ok((config, warnings)) => Ok(Loaded {
            path: path.to_owned(),
            text,
            config,
            warnings,
        }),
        Err(errors) => Err(LoadError::Invalid {
            path: path.to_owned(),
            text,
            errors,
        }),
    }
}

/// Reads the file, and does not look what is in it.
///
/// # Errors
/// It cannot be read, is not UTF-8, or too large to be a config.
pub fn read_text(path: &Path) -> Result<String, LoadError> {
    let unreadable = |why: String| LoadError::Unreadable {
        path: path.to_owned(),
        why,
    };
    let bytes = read_file(path, MOST_CONFIG).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
        let (line, column) = locate(&valid, valid.len());
        unreadable(format!("line {line}, column {column} is not UTF-8"))
    })
}

impl Loaded {
    /// The warnings, as `file:line:column: key: message`.
    pub fn warning_lines(&self) -> impl Iterator<Item = String> + '_ {
        self.warnings.iter().map(|warning| {
            let (line, column) = locate(&self.text, warning.span.start);
            format!("{}:{line}:{column}: {warning}", self.path.display())
        })
    }
}

fn lines(path: &Path, text: &str, errors: &[ConfigError]) -> String {
    let line = |error: &ConfigError| {
        let (line, column) = locate(text, error.span.start);
        format!("{}:{line}:{column}: {error}", path.display())
    };
    errors.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What a config points at.
pub trait Outside {
    /// `None`: not looked for.
    fn secret(&self, source: &SecretSource) -> Result<Option<Secret>, String>;
    fn readable(&self, path: &Path) -> Result<(), String>;
    fn is_directory(&self, path: &Path) -> bool;
}

/// For reading a text alone.
pub struct Nothing;

impl Outside for Nothing {
    fn secret(&self, _: &SecretSource) -> Result<Option<Secret>, String> {
        Ok(None)
    }

    fn readable(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }

    fn is_directory(&self, _: &Path) -> bool {
        false
    }
}

struct System;

impl Outside for System {
    fn secret(&self, source: &SecretSource) -> Result<Option<Secret>, String> {
        let text = match source {
            SecretSource::File(path) => {
                let bytes = read_file(path, MOST_SECRET)
                    .map_err(|why| format!("cannot read {}: {why}", path.display()))?;
                String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?
            }
            SecretSource::Env(name) => std::env::var(name).map_err(|e| match e {
                std::env::VarError::NotPresent => format!("the variable {name} is not set"),
                std::env::VarError::NotUnicode(_) => format!("the variable {name} is not UTF-8"),
            })?,
        };
        // Editors and `echo` end a file with a newline that is not meant.
        let text = text
            .strip_suffix('\n')
            .map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
        if text.is_empty() {
            return Err("the password is empty".to_owned());
        }
        Ok(Some(Secret::new(text.to_owned())))
    }

    fn readable(&self, path: &Path) -> Result<(), String> {
        let fails = |why: String| format!("cannot read {}: {why}", path.display());
        let file = File::open(path).map_err(|e| fails(e.to_string()))?;
        let about = file.metadata().map_err(|e| fails(e.to_string()))?;
        if about.is_dir() {
            Err(fails("it is a directory".to_owned()))
        } else {
            Ok(())
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("it has more than {most} bytes"));
    }
    Ok(bytes)
}

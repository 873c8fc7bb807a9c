//! What a package ships besides the binary: completions and man pages, made from the definitions of the
//! command line.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

const NAME: &str = "pilotfish";

/// A command and how it is called, from the top down.
type Named = (String, Command);

/// Prints completions for `shell`.
///
/// # Errors
/// When nobody reads them.
pub fn completions(shell: Shell) -> Result<(), String> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut text);
    print(&text).map_err(|error| error.to_string())
}

/// Prints one page with all commands, or writes a page each to `dir`.
///
/// # Errors
/// When they cannot be written.
pub fn man(dir: Option<&Path>) -> Result<(), String> {
    let done = match dir {
        None => page().and_then(|text| print(&text)),
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir),
    };
    done.map_err(|error| error.to_string())
}

fn print(text: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(text)
}

/// Everything below `command`, itself first. `help` is no command of ours.
fn all(name: &str, command: &Command, found: &mut Vec<Named>) {
    found.push((name.to_owned(), command.clone()));
    let below = command.get_subcommands();
    for sub in below.filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        all(&format!("{name} {}", sub.get_name()), sub, found);
    }
}

fn built() -> Vec<Named> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut found = Vec::new();
    all(NAME, &command, &mut found);
    found
}

/// One page: the top in full, then a section per command.
fn page() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for (depth, (name, command)) in built().into_iter().enumerate() {
        let man = Man::new(command.clone()).manual("Pilotfish");
        if depth == 0 {
            man.render(&mut text)?;
            continue;
        }
        let title = name.to_uppercase();
        writeln!(text, ".SH \"{title}\"")?;
        if let Some(about) = command.get_about() {
            writeln!(text, "{}.", escaped(&about.to_string()))?;
        }
        // As sections of a section they would end it.
        let mut parts = Vec::new();
        man.render_synopsis_section(&mut parts)?;
        if command.get_arguments().next().is_some() {
            man.render_options_section(&mut parts)?;
        }
        text.extend(
            String::from_utf8_lossy(&parts)
                .replace(".SH ", ".SS ")
                .into_bytes(),
        );
    }
    Ok(text)
}

/// A line that begins with a dot or a quote is an instruction (groff(7)), and a hyphen is none.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command() {
        let text = String::from_utf8(page().unwrap()).unwrap();
        for verb in ["RUN", "CHECK", "PIN", "COMPLETIONS", "MAN"] {
            assert!(
                text.contains(&format!(".SH \"PILOTFISH {verb}\"")),
                "{verb}"
            );
        }
        assert!(!text.contains("PILOTFISH HELP"));
    }

    #[test]
    fn a_page_per_command() {
        let dir = tempfile::tempdir().unwrap();
        man(Some(dir.path())).unwrap();
        let page = std::fs::read_to_string(dir.path().join("pilotfish-pin.1")).unwrap();
        assert!(page.contains(".TH pilotfish-pin 1"), "{page}");
        assert!(dir.path().join("pilotfish.1").exists());
    }
}

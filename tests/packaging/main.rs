//! What is shipped: the unit as systemd reads it, man pages as man renders them, completions as the shell does, and the
//! stack of containers.

mod docker;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_pilotfish");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(name)
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    // Debian keeps some programs in /usr/sbin, which is not in every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let output = command.env("PATH", path).output();
    output.unwrap_or_else(|error| panic!("{program:?} (scripts/install-packages test): {error}"))
}

/// What a command printed; it must have ended well.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}\n{err}");
    out
}

/// systemd looks whether the program is there; before the package is installed it is elsewhere.
#[test]
fn systemd_understands_the_units() {
    let dir = tempfile::tempdir().expect("a directory");
    let unit = std::fs::read_to_string(packaging("pilotfish.service")).expect("the unit");
    let ours = unit.replace("/usr/bin/pilotfish", BINARY);
    assert_ne!(ours, unit);
    std::fs::write(dir.path().join("pilotfish.service"), ours).expect("writing");
    std::fs::copy(
        packaging("examples/pilotfish.socket"),
        dir.path().join("pilotfish.socket"),
    )
    .expect("copying");
    for name in ["pilotfish.service", "pilotfish.socket"] {
        let mut verify = Command::new("systemd-analyze");
        verify
            .args(["verify", "--man=no"])
            .arg(dir.path().join(name));
        let output = run(&mut verify);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // What systemd 252 says of a type that is newer; the unit has a line for that.
        let known = |line: &&str| line.contains("ignoring: notify-reload");
        let ours = said.lines().filter(|line| line.contains("pilotfish"));
        let wrong: Vec<&str> = ours.filter(|line| !known(line)).collect();
        assert!(wrong.is_empty() && output.status.success(), "{said}");
    }
}

#[test]
fn the_unit_is_as_tight_as_the_documentation_says() {
    let marker = "for the unit is ";
    let (_, rest) = OPERATIONS
        .split_once(marker)
        .expect("the figure is documented");
    let documented: f64 = rest
        .split(';')
        .next()
        .and_then(|figure| figure.parse().ok())
        .expect("a figure");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager"]);
    let said = printed(security.arg(packaging("pilotfish.service")));
    let figure = said
        .split_once("Overall exposure level")
        .and_then(|(_, rest)| {
            rest.split_whitespace()
                .find_map(|word| word.parse::<f64>().ok())
        })
        .expect("systemd-analyze gives a figure");
    assert!(figure <= documented, "{figure} > {documented}");
}

#[test]
fn man_pages_render_without_warnings() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = dir.path().join("whole.1");
    std::fs::write(&whole, printed(Command::new(BINARY).arg("man"))).expect("writing");
    printed(Command::new(BINARY).arg("man").arg("--dir").arg(dir.path()));
    let pages = std::fs::read_dir(dir.path()).expect("pages");
    let mut rendered = 0;
    for page in pages {
        let page = page.expect("a page").path();
        let mut man = Command::new("man");
        // Long options and addresses cannot be broken: that a line is short is no mistake.
        man.env("MANWIDTH", "100").env("MANPAGER", "cat");
        man.args(["-l", "--warnings=w"]);
        let output = run(man.arg(&page));
        let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && warnings.is_empty(),
            "{page:?}: {warnings}"
        );
        assert!(output.stdout.len() > 100, "{page:?}");
        rendered += 1;
    }
    assert!(rendered > 10, "only {rendered} pages");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let text = printed(Command::new(BINARY).args(["completions", shell]));
        for verb in ["run", "status", "failover", "completions"] {
            assert!(text.contains(verb), "{shell} does not know {verb}");
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pilotfish");
    let text = printed(Command::new(BINARY).args(["completions", "bash"]));
    std::fs::write(&file, text).expect("writing");
    printed(Command::new("bash").arg("-n").arg(&file));
    let ask = format!(
        "source {}; COMP_WORDS=(pilotfish sta) COMP_CWORD=1; _pilotfish pilotfish sta pilotfish; echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let found = printed(Command::new("bash").args(["-c", &ask]));
    assert_eq!(found.trim(), "status");
}

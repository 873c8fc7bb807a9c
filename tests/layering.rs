//! Who may import whom, and what the parts that only decide must not touch. When this fails,
//! change the code first and the table only when the shape of the program is meant to change; then
//! `docs/architecture.md` changes with it.

use std::path::{Path, PathBuf};

/// A module and what it may name besides itself. The longest entry that fits a file counts, so a
/// part of a module can be held to more than the whole. Nobody names `cli`, and only `cli` and
/// `app` name `config`: everything else gets the values that concern it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "addr",
            "admin",
            "app",
            "clock",
            "config",
            "cutover",
            "events",
            "handover",
            "telemetry",
        ],
    ),
    (
        "app",
        &[
            "addr",
            "admin",
            "clock",
            "config",
            "cutover",
            "data",
            "dns",
            "drain",
            "events",
            "gate",
            "handover",
            "monitor",
            "net",
            "proto",
            "runtime",
            "secret",
            "signal",
            "supervise",
            "telemetry",
            "topology",
        ],
    ),
    (
        "config",
        &[
            "addr",
            "admin::spec",
            "cutover::auto",
            "cutover::gate",
            "cutover::lock",
            "cutover::network",
            "cutover::notify",
            "cutover::spec",
            "dns",
            "net::tls",
            "proto::spec",
            "secret",
            "telemetry::spec",
        ],
    ),
    ("runtime", &["clock", "drain", "net", "signal", "supervise"]),
    (
        "supervise",
        &["clock", "drain", "events", "monitor::backoff", "signal"],
    ),
    // What is answered to people and machines: handles of the others, and never a wire protocol.
    (
        "admin",
        &[
            "addr",
            "clock",
            "cutover",
            "data",
            "drain",
            "events",
            "gate",
            "handover",
            "monitor",
            "net",
            "signal",
            "supervise",
            "telemetry",
            "topology",
        ],
    ),
    ("admin::spec", &[]),
    (
        "telemetry",
        &[
            "addr",
            "clock",
            "data",
            "drain",
            "events",
            "gate",
            "monitor",
            "net",
            "signal",
            "supervise",
            "topology",
        ],
    ),
    ("telemetry::spec", &[]),
    // The bytes' way.
    (
        "data",
        &[
            "addr",
            "clock",
            "drain",
            "events",
            "gate",
            "monitor::backoff",
            "monitor::hints",
            "net",
            "proto",
            "signal",
            "supervise",
            "telemetry::metrics",
            "topology",
        ],
    ),
    // What is found out about servers.
    (
        "proto",
        &[
            "addr",
            "clock",
            "handover",
            "monitor",
            "net",
            "secret",
            "signal",
            "supervise",
            "topology",
        ],
    ),
    (
        "proto::spec",
        &["addr", "net::tls", "secret", "topology::pick"],
    ),
    (
        "monitor",
        &[
            "addr",
            "clock",
            "events",
            "gate",
            "net",
            "signal",
            "supervise",
            "telemetry::metrics",
            "topology",
        ],
    ),
    // The regional cutover: what it wants of the process, the app gives it.
    (
        "cutover",
        &[
            "addr",
            "clock",
            "command",
            "dns",
            "events",
            "gate",
            "net",
            "secret",
            "signal",
            "supervise",
            "telemetry::metrics",
            "telemetry::problem",
            "telemetry::serve",
            "topology",
        ],
    ),
    ("cutover::spec", &["addr", "dns", "secret"]),
    // Forced failover: the steps and their way back; what a database is told is in `proto`.
    (
        "handover",
        &[
            "addr",
            "clock",
            "command",
            "events",
            "gate",
            "monitor",
            "net",
            "signal",
            "supervise",
            "telemetry::metrics",
            "topology",
        ],
    ),
    // Where the records are kept that lead to a region.
    ("dns", &["addr", "clock", "net", "secret"]),
    ("dns::spec", &["addr", "net::tls", "secret"]),
    ("net", &["addr", "clock", "secret", "signal"]),
    // Leaves.
    ("command", &["clock"]),
    ("topology", &["addr", "clock", "signal"]),
    ("events", &["addr", "clock", "signal", "topology"]),
    ("gate", &["clock", "signal"]),
    ("drain", &["clock", "signal"]),
    ("signal", &[]),
    ("clock", &[]),
    ("addr", &[]),
    ("secret", &[]),
];

/// Files that decide and do nothing else: the same input gives the same answer, in a test and in a
/// simulation too. A name without folder means every file of that name.
const PURE: &[&str] = &[
    "topology/reduce.rs",
    "topology/pick.rs",
    "monitor/backoff.rs",
    "monitor/urgency.rs",
    "proto/redis/omen.rs",
    "judge.rs",
    "config/",
    "handover/course.rs",
    "handover/quiet.rs",
    "proto/redis/failover/plan.rs",
    "proto/mysql/failover/facts.rs",
    "proto/mysql/failover/gtid.rs",
    "proto/mysql/galera/order.rs",
    "proto/mysql/tracker/",
    "proto/mysql/login/exchange.rs",
    "proto/mysql/login/hello.rs",
    "dns/change.rs",
    "dns/name.rs",
    "dns/record.rs",
    "dns/rows.rs",
    "dns/rfc2136/message.rs",
    "dns/route53/xml.rs",
    "dns/ovh/sign.rs",
    "dns/http/hint.rs",
    "dns/verify/chain.rs",
    "cutover/spec.rs",
    "cutover/network.rs",
    "cutover/plan/",
    "cutover/gate/judge/",
    "cutover/gate/mod.rs",
    "cutover/machine/",
    "cutover/journal/line.rs",
    "cutover/auto/decide.rs",
    "cutover/auto/payload.rs",
    "cutover/lock/word.rs",
    "telemetry/page/html.rs",
    "telemetry/page/model.rs",
    "telemetry/page/picture.rs",
    "telemetry/page/render.rs",
];
const PURE_BUT: &[&str] = &["config/load.rs"];
const NOT_PURE: &[&str] = &[
    "async ",
    ".await",
    "tokio::",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "std::fs",
    "std::env",
    "std::thread",
];

struct Source {
    /// Below `src`, with `/`.
    path: String,
    /// Without comments and test modules; line numbers are those of the file.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let source = |file: PathBuf| {
        let path = file
            .strip_prefix(&root)
            .expect("it was found there")
            .to_string_lossy();
        let text = std::fs::read_to_string(&file).expect("src can be read");
        Source {
            path: path.replace('\\', "/"),
            code: code(&text),
        }
    };
    files.into_iter().map(source).collect()
}

/// `text` without comments, and without the test module that ends a file: tests may use everything.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let test_module = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line == "#[cfg(test)]" && lines.peek().is_some_and(test_module) {
            break;
        }
        let end = if line.trim_start().starts_with("//") {
            Some(0)
        } else {
            line.find(" // ")
        };
        out.push_str(&line[..end.unwrap_or(line.len())]);
        out.push('\n');
    }
    out
}

/// `proto/redis/mod.rs` is `proto::redis`.
fn module(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

/// The first two parts of every path in `code` that begins with `root`, and its line.
fn named(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let mut paths = Vec::new();
        expand(&code[at + root.len()..], &[], &mut paths);
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

/// `a::{b, c::d}` is `a::b` and `a::c`.
fn expand(tree: &str, before: &[&str], out: &mut Vec<String>) {
    let tree = tree.trim_start();
    if before.len() == 2 {
        return out.push(before.join("::"));
    }
    if let Some(inner) = tree.strip_prefix('{') {
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    if !inner[start..at].trim().is_empty() {
                        expand(&inner[start..at], before, out);
                    }
                    start = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let end = tree
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(tree.len());
    let (name, rest) = tree.split_at(end);
    let mut path = before.to_vec();
    if !name.is_empty() && name != "self" {
        path.push(name);
    }
    match rest.strip_prefix("::") {
        Some(rest) => expand(rest, &path, out),
        None if path.is_empty() => {}
        None => out.push(path.join("::")),
    }
}

fn within(path: &str, of: &str) -> bool {
    path.strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What `source` names and may not, as lines for people.
fn forbidden_imports(source: &Source) -> Vec<String> {
    let Source { path, code } = source;
    let me = module(path);
    if me == "lib" {
        return Vec::new();
    }
    let rules = MAY_IMPORT.iter().filter(|(module, _)| within(&me, module));
    let Some((unit, allowed)) = rules.max_by_key(|(module, _)| module.len()) else {
        return vec![format!("src/{path}: `{me}` has no line in MAY_IMPORT")];
    };
    let top = me.split("::").next().expect("a split has a first part");
    let mut names = named(code, "crate::");
    if me == "main" {
        names.extend(named(code, "pilotfish::"));
    }
    // At the top of the tree `super` is another way to say `crate`.
    if !me.contains("::") {
        let lines = code
            .lines()
            .enumerate()
            .filter(|(_, line)| line.starts_with("use super::"));
        names.extend(lines.map(|(at, _)| (at + 1, "super".to_owned())));
    }
    let fine = |name: &str| within(name, top) || allowed.iter().any(|a| within(name, a));
    names.retain(|(_, name)| !fine(name));
    let say = |(line, name)| format!("src/{path}:{line}: `{unit}` may not name `{name}`");
    names.into_iter().map(say).collect()
}

fn is_pure(path: &str, rule: &str) -> bool {
    if PURE_BUT.contains(&path) {
        return false;
    }
    path.starts_with(rule) || (!rule.contains('/') && path.rsplit('/').next() == Some(rule))
}

fn impurities(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        for word in NOT_PURE.iter().filter(|word| line.contains(**word)) {
            let (path, line) = (&source.path, at + 1);
            found.push(format!(
                "src/{path}:{line}: `{}` in a file that only decides",
                word.trim()
            ));
        }
    }
    found
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn nobody_imports_what_is_not_below() {
    let sources = sources();
    assert!(sources.len() > 10, "found only {} files", sources.len());
    assert_none(sources.iter().flat_map(forbidden_imports).collect());
}

#[test]
fn only_net_names_the_runtimes_sockets() {
    let mut found = Vec::new();
    let mut in_net = 0;
    for source in sources() {
        let names = named(&source.code, "tokio::");
        let sockets = names.into_iter().filter(|(_, name)| within(name, "net"));
        if source.path.starts_with("net/") {
            in_net += sockets.count();
            continue;
        }
        let path = &source.path;
        found.extend(
            sockets.map(|(line, _)| format!("src/{path}:{line}: only `net` names tokio::net")),
        );
    }
    assert!(
        in_net > 0,
        "`net` does not name tokio::net: this test looks for the wrong thing"
    );
    assert_none(found);
}

#[test]
fn what_decides_does_nothing_else() {
    let sources = sources();
    let mut found = Vec::new();
    for rule in PURE {
        let files: Vec<&Source> = sources.iter().filter(|s| is_pure(&s.path, rule)).collect();
        assert!(!files.is_empty(), "no file is meant by `{rule}` in PURE");
        found.extend(files.into_iter().flat_map(impurities));
    }
    assert_none(found);
}

/// The tests above are worth what they would notice.
mod notices {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            code: code(text),
        }
    }

    #[test]
    fn forbidden_imports_however_they_are_written() {
        for (path, text, said) in [
            (
                "data/session.rs",
                "\nuse crate::config::Config;",
                "data/session.rs:2: `data` may not name `config::Config`",
            ),
            (
                "data/mod.rs",
                "use crate::{\n    addr::Addr,\n    net::{self, dial},\n    app,\n};",
                "may not name `app`",
            ),
            (
                "data/mod.rs",
                "use crate::{config, net};",
                "may not name `config`",
            ),
            (
                "topology/cell.rs",
                "fn f() -> crate::net::Stream { todo() }",
                "may not name `net::Stream`",
            ),
            (
                "config/tls.rs",
                "use crate::net::dial::Dialer;",
                "`config` may not name `net::dial`",
            ),
            (
                "config/mod.rs",
                "use crate::net::{tls, dial};",
                "may not name `net::dial`",
            ),
            (
                "admin/spec.rs",
                "use crate::net;",
                "`admin::spec` may not name `net`",
            ),
            (
                "main.rs",
                "fn main() { pilotfish::app::run() }",
                "`main` may not name `app::run`",
            ),
            ("addr.rs", "use super::clock;", "may not name `super`"),
            ("new.rs", "", "`new` has no line in MAY_IMPORT"),
        ] {
            let found = forbidden_imports(&source(path, text));
            assert!(
                found.len() == 1 && found[0].contains(said),
                "{path}: {text}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_allowed_or_only_talked_about() {
        for (path, text) in [
            (
                "data/mod.rs",
                "//! [`crate::config`]\nuse crate::net::{self, dial};\nuse crate::data::x;",
            ),
            (
                "config/tls.rs",
                "use crate::net::tls::{TlsMode, TlsSettings};",
            ),
            (
                "config/mod.rs",
                "use crate::{addr::Addr, proto::spec::ServiceSpec};",
            ),
            (
                "addr.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::config;\n}\n",
            ),
            ("main.rs", "fn main() { pilotfish::cli::main_with() }"),
        ] {
            assert_eq!(
                forbidden_imports(&source(path, text)),
                Vec::<String>::new(),
                "{text}"
            );
        }
    }

    #[test]
    fn sockets_and_impurities() {
        assert_eq!(
            named("use tokio::{sync, net::TcpStream};", "tokio::")[1].1,
            "net::TcpStream"
        );
        let judge = source(
            "proto/redis/sentinel/judge.rs",
            "fn f() {\n    Instant::now();\n}",
        );
        assert!(is_pure(&judge.path, "judge.rs") && !is_pure("config/load.rs", "config/"));
        assert!(impurities(&judge)[0].contains("judge.rs:2: `Instant::now`"));
    }
}

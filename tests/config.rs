//! The reference config, and tables of valid and invalid ones.

#![allow(clippy::unwrap_used)] // it allows tests, and not what helps them

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pilotfish::config::{self, locate};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn reference() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("proxy.toml")).unwrap()
}

/// `text` with the marked lines brought to life.
fn uncommented(text: &str, marks: &[&str]) -> String {
    let line = |line: &str| {
        let bare = marks.iter().find_map(|mark| line.strip_prefix(mark));
        let is_key = |text: &str| text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        let is_setting = |b: &&str| b.split_once(" = ").is_some_and(|(key, _)| is_key(key));
        // A whole section may be left out as well.
        let setting = bare.filter(|b| is_setting(b) || b.starts_with('['));
        setting.unwrap_or(line).to_owned() + "\n"
    };
    text.lines().map(line).collect()
}

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let dir = Path::new(ROOT).join("tests/config").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    files.into_iter().map(read).collect()
}

/// What the file's comments say about it: `# MARK: LINE:COLUMN KEY | part of the message or help`.
fn expected(text: &str, mark: &str) -> Vec<(String, String)> {
    let comments = text.lines().filter_map(|line| line.strip_prefix(mark));
    let parts = comments.map(|line| line.split_once('|').expect("place and key | part"));
    parts
        .map(|(place, part)| (place.trim().to_owned(), part.trim().to_owned()))
        .collect()
}

fn found(text: &str, start: usize, key: &str) -> String {
    let (line, column) = locate(text, start);
    format!("{line}:{column} {}", if key.is_empty() { "-" } else { key })
}

/// Exactly the expected findings, in their order; a difference shows both lists.
fn compare(path: &Path, expected: &[(String, String)], found: &[(String, String)]) {
    let same = expected.len() == found.len()
        && expected
            .iter()
            .zip(found)
            .all(|(e, f)| e.0 == f.0 && f.1.contains(&e.1));
    assert!(
        same,
        "{}\nexpected {expected:#?}\nfound {found:#?}",
        path.display()
    );
}

#[test]
fn the_reference_is_valid_and_says_the_defaults() {
    let text = reference();
    let (plain, warnings) = config::parse(&text).unwrap();
    assert_eq!(warnings, []);
    let with_defaults = uncommented(&text, &["#"]);
    assert!(
        with_defaults
            .lines()
            .filter(|l| !l.starts_with('#'))
            .count()
            > 40,
        "found no defaults"
    );
    let (spelt_out, _) = config::parse(&with_defaults).unwrap();
    assert_eq!(plain, spelt_out, "a line `#key = ...` is not the default");
}

#[test]
fn the_reference_names_every_key() {
    let text = reference();
    let named = config::keys(&uncommented(&text, &["#or ", "#"]));
    let mut known: BTreeMap<String, bool> = config::keys(&text);
    for (_, text) in files("valid") {
        known.extend(config::keys(&text));
    }
    assert!(
        known.len() > 50,
        "the parser knows more keys than {}",
        known.len()
    );
    let missing: Vec<&String> = known
        .keys()
        .filter(|key| !named.get(*key).copied().unwrap_or(false))
        .collect();
    assert!(missing.is_empty(), "proxy.toml does not name {missing:#?}");
}

#[test]
fn valid_files() {
    let files = files("valid");
    assert!(files.len() >= 8, "only {} files", files.len());
    for (path, text) in files {
        let (_, warnings) = config::parse(&text).unwrap_or_else(|e| panic!("{path:?}: {e:#?}"));
        let warnings: Vec<(String, String)> = warnings
            .iter()
            .map(|w| {
                (
                    found(&text, w.span.start, &w.key),
                    format!("{} ({})", w.message, w.help),
                )
            })
            .collect();
        compare(&path, &expected(&text, "# warn: "), &warnings);
    }
}

#[test]
fn invalid_files() {
    let files = files("invalid");
    assert!(files.len() >= 25, "only {} files", files.len());
    for (path, text) in files {
        let errors = config::parse(&text).expect_err(&path.display().to_string());
        let errors: Vec<(String, String)> = errors
            .iter()
            .map(|e| {
                (
                    found(&text, e.span.start, &e.key),
                    format!("{} ({})", e.message, e.help),
                )
            })
            .collect();
        assert!(!errors.is_empty(), "{path:?}");
        compare(&path, &expected(&text, "# expect: "), &errors);
    }
}

mod defaults {
    use std::time::Duration;

    use pilotfish::config;
    use pilotfish::net::tls::TlsMode;
    use pilotfish::proto::spec::{Discovery, FenceOn, Minority, ReplicaFallback, SwitchOn};
    use pilotfish::telemetry::spec::LogFormat;

    const SMALLEST: &str = r#"
        [[service]]
        name = "cache"
        protocol = "redis"
        listen = ["127.0.0.1:6379"]
        [service.discovery]
        kind = "sentinel"
        master = "mymaster"
        sentinels = ["10.0.1.11:26379", "10.0.2.11:26379", "10.0.3.11:26379"]
        [[service]]
        name = "other"
        protocol = "tcp"
        listen = ["127.0.0.1:9306"]
        discovery = { kind = "static", nodes = ["db.example.com:9306"] }
        tls = {}
    "#;

    #[test]
    fn of_the_process() {
        let (config, warnings) = config::parse(SMALLEST).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(
            (config.name, config.region, config.workers),
            (None, None, 0)
        );
        assert_eq!(config.drain_timeout, Duration::from_secs(30));
        assert_eq!(config.http.listen, ["127.0.0.1:8600".parse().unwrap()]);
        assert_eq!(config.http.unhealthy_after, Duration::from_secs(15));
        assert_eq!(
            config.admin.socket.to_str(),
            Some("/run/pilotfish/admin.sock")
        );
        assert_eq!(config.admin.mode, 0o600);
        assert_eq!(config.admin.allow_groups, Vec::<String>::new());
        assert_eq!(
            (&*config.log.filter, config.log.format),
            ("info", LogFormat::Text)
        );
    }

    #[test]
    fn of_a_service() {
        let (config, _) = config::parse(SMALLEST).unwrap();
        let [cache, other] = &config.services[..] else {
            panic!("{config:?}")
        };
        assert!(cache.required);
        assert_eq!(cache.listen.replica, []);
        assert_eq!(cache.listen.replica_fallback, ReplicaFallback::Primary);
        assert_eq!(cache.listen.socket_mode, 0o666);
        assert_eq!(cache.limits.hold_timeout, Duration::from_millis(800));
        assert_eq!(other.limits.hold_timeout, Duration::from_secs(10));
        let l = &cache.limits;
        assert_eq!(
            (l.max_held, l.max_connections, l.max_connecting),
            (1000, 10_000, 64)
        );
        assert_eq!(l.connect_timeout, Duration::from_secs(1));
        assert_eq!(l.idle_timeout, None);
        assert_eq!(l.tcp_keepalive, Duration::from_secs(30));
        assert_eq!(
            (cache.tls.mode, other.tls.mode),
            (TlsMode::Off, TlsMode::VerifyFull)
        );
    }

    #[test]
    fn of_the_sentinels() {
        let (config, _) = config::parse(SMALLEST).unwrap();
        let Discovery::Sentinel(spec) = &config.services[0].discovery else {
            panic!("{config:?}")
        };
        assert_eq!(spec.minority, Minority::Serve);
        assert_eq!(spec.fence, FenceOn::Failover);
        assert_eq!(spec.switch_on, SwitchOn::Announcement);
        assert_eq!(spec.probe_interval, Duration::from_secs(1));
        assert_eq!(spec.sentinel_tls.mode, TlsMode::Off);
        assert_eq!(spec.credentials.password, None);
    }
}

mod outside {
    use std::path::Path;

    use pilotfish::config::{self, LoadError};
    use pilotfish::proto::spec::Discovery;

    fn write(dir: &Path, secret: &str) -> std::path::PathBuf {
        let file = dir.join("proxy.toml");
        let text = format!(
            "[[service]]\nname = \"cache\"\nprotocol = \"redis\"\nlisten = [\"127.0.0.1:6379\"]\n\
             [service.discovery]\nkind = \"redis\"\nnodes = [\"10.0.0.1:6379\"]\n{secret}\n"
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    fn loaded(secret: &str, content: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), content).unwrap();
        let secret = secret.replace("DIR", dir.path().to_str().unwrap());
        let loaded = config::load(&write(dir.path(), &secret));
        let loaded =
            loaded.map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), "DIR"))?;
        let shown = format!("{:?}", loaded.config);
        let Discovery::Redis(spec) = &loaded.config.services[0].discovery else {
            panic!("{shown}")
        };
        let password = spec
            .credentials
            .password
            .as_ref()
            .unwrap()
            .expose()
            .to_owned();
        assert!(!shown.contains(&password), "{shown}");
        Ok(password)
    }

    #[test]
    fn a_secret_file_loses_one_newline() {
        let file = "password_file = \"DIR/secret\"";
        for (content, password) in [
            (&b"pa55word"[..], "pa55word"),
            (b"pa55word\n", "pa55word"),
            (b"pa55word\r\n", "pa55word"),
            (b" pa55word \n\n", " pa55word \n"),
        ] {
            assert_eq!(loaded(file, content).unwrap(), password);
        }
    }

    #[test]
    fn a_secret_that_cannot_be_had_is_an_error_at_its_key() {
        let key = "DIR/proxy.toml:8:17: service[0].discovery.password_file: ";
        for (secret, content, said) in [
            (
                "password_file = \"DIR/none\"",
                &b""[..],
                "cannot read DIR/none: No such file",
            ),
            (
                "password_file = \"DIR/secret\"",
                b"\n",
                "the password is empty",
            ),
            ("password_file = \"DIR/secret\"", b"\xff", "not UTF-8"),
            (
                "password_file = \"DIR\"",
                b"",
                "cannot read DIR: Is a directory",
            ),
            (
                "password_file = \"/dev/zero\"",
                b"",
                "more than 65536 bytes",
            ),
        ] {
            let error = loaded(secret, content).unwrap_err();
            assert!(error.starts_with(key) && error.contains(said), "{error}");
        }
        let error = loaded("password_env = \"PILOTFISH_NO_SUCH_VARIABLE\"", b"").unwrap_err();
        assert!(
            error.contains(":8:16: service[0].discovery.password_env"),
            "{error}"
        );
        assert!(
            error.contains("PILOTFISH_NO_SUCH_VARIABLE is not set"),
            "{error}"
        );
    }

    #[test]
    fn a_certificate_file_has_to_be_there() {
        let tls = "[service.tls]\nmode = \"verify-ca\"\nca_file = \"DIR/none\"";
        let error = loaded(tls, b"").unwrap_err();
        assert!(
            error.starts_with("DIR/proxy.toml:10:11: service[0].tls.ca_file: "),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_config() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.toml");
        let load = || config::load(&file).unwrap_err();
        assert!(matches!(load(), LoadError::Unreadable { .. }), "not there");
        std::fs::write(&file, b"name = \"a\"\nregion = \"\xff\"").unwrap();
        assert!(
            load()
                .to_string()
                .contains("line 2, column 11 is not UTF-8"),
            "{}",
            load()
        );
        std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(
            load().to_string().contains("more than 1048576 bytes"),
            "{}",
            load()
        );
        std::fs::write(&file, b"").unwrap();
        assert!(
            load().to_string().contains("`service` is missing"),
            "{}",
            load()
        );
    }
}

mod hostile {
    use pilotfish::config::{self, locate, mask};
    use proptest::prelude::*;

    /// Whatever the text is: an answer, and places that are in it.
    fn survives(text: &str) {
        if let Err(errors) = config::parse(text) {
            assert!(!errors.is_empty(), "refused without a reason: {text}");
            assert!(errors.len() <= 101);
            for error in errors {
                let (line, column) = locate(text, error.span.start);
                assert!(line >= 1 && column >= 1);
                assert!(error.message.len() < 1000, "{}", error.message);
            }
        }
        config::keys(text);
        config::admin_socket(text);
        assert_eq!(mask::passwords(text).len(), text.len());
    }

    #[test]
    fn deep_and_long() {
        const MANY: usize = 50_000;
        for text in [
            format!("a = {}", "[".repeat(MANY)),
            format!("a = {}{}", "[".repeat(MANY), "]".repeat(MANY)),
            format!("a = {}", "{b=".repeat(MANY)),
            format!("{}a = 1", "a.".repeat(MANY)),
            format!("[{}a]", "a.".repeat(MANY)),
            "[[service]]\n".repeat(MANY),
            "[service]\n".repeat(MANY),
            "[[service.discovery]]\n".repeat(MANY),
            "a\n".repeat(MANY),
            (0..MANY).map(|n| format!("k{n} = 1\n")).collect(),
            format!("{} = 1", "k".repeat(MANY)),
            format!("workers = {}", "9".repeat(MANY)),
            format!("drain_timeout = \"{}s\"", "9".repeat(MANY)),
            format!("[http]\nlisten = [\"{}\"]", "x:".repeat(MANY)),
            format!("[log]\nlevel = \"{}\"", "a=b,".repeat(1000)),
            format!("[log]\nlevel = \"{}\"", "[{(".repeat(1000)),
        ] {
            survives(&text);
        }
    }

    proptest! {
        #[test]
        fn changed_bytes(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..30)) {
            let mut bytes = super::uncommented(&super::reference(), &["#or ", "#"]).into_bytes();
            for (index, byte, what) in edits {
                let at = index.index(bytes.len());
                match what {
                    0 => bytes[at] = byte,
                    1 => { bytes.remove(at); }
                    2 => bytes.insert(at, b"\"'[]{}=.,#\n\\"[usize::from(byte) % 12]),
                    _ => bytes.truncate(bytes.len() - at % 40),
                }
            }
            survives(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn moved_lines(moves in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20)) {
            let text = super::uncommented(&super::reference(), &["#or ", "#"]);
            let mut lines: Vec<&str> = text.lines().collect();
            for (from, to) in moves {
                let line = lines.remove(from.index(lines.len()));
                lines.insert(to.index(lines.len()), line);
            }
            survives(&lines.join("\n"));
        }

        #[test]
        fn other_values(index in any::<prop::sample::Index>(), value in prop::sample::select(vec![
            "1", "-1", "1e9", "true", "\"\"", "[]", "{}", "[[]]", "{ a = 1 }", "1979-05-27", "inf",
            "[\"\", 1, {}]", "\"\\u0000\"", "99999999999999999999", "0xffff_ffff", "\"unix:/\"",
        ])) {
            let text = super::uncommented(&super::reference(), &["#or ", "#"]);
            let settings: Vec<usize> = text.match_indices(" = ").map(|(at, _)| at + 3).collect();
            let at = settings[index.index(settings.len())];
            let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
            survives(&format!("{}{value}{}", &text[..at], &text[end..]));
        }

        #[test]
        fn any_text(text in "\\PC*") {
            survives(&text);
        }
    }
}

mod command {
    use std::process::Command;

    fn check(text: &str) -> (Option<i32>, String, String) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("proxy.toml"), text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
            .arg("check")
            .current_dir(dir.path())
            .env_remove("PILOTFISH_CONFIG")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    const SERVICE: &str = "[[service]]\nname = \"cache\"\nprotocol = \"redis\"\n\
        listen = [\"127.0.0.1:6379\"]\n[service.discovery]\nkind = \"redis\"\n\
        nodes = [\"10.0.1.21:6379\"]\npassword = \"hunter2\"\n";

    #[test]
    fn of_a_valid_file() {
        let (code, stdout, stderr) = check(SERVICE);
        assert_eq!(stdout, "./proxy.toml: ok, 1 service, 1 warning\n");
        let line = "./proxy.toml:8:1: warning: service[0].discovery.password: a password in plain";
        assert!(stderr.starts_with(line), "{stderr}");
        assert!(
            !stderr.contains("hunter2") && !stderr.contains('\x1b'),
            "{stderr}"
        );
        assert_eq!(code, Some(0));
    }

    #[test]
    fn of_an_invalid_file() {
        let (code, stdout, stderr) = check(&format!(
            "{SERVICE}fence = \"odown\"\nprobe_interval = 10\n"
        ));
        assert_eq!(stdout, "");
        for part in [
            "./proxy.toml:9:1: error: service[0].discovery.fence: unknown key `fence`\n",
            "./proxy.toml:10:18: error: service[0].discovery.probe_interval: a duration is wanted",
            "10 │ probe_interval = 10",
            "help: write \"10s\" or \"10ms\"",
            "./proxy.toml: 2 errors\n",
        ] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
        assert!(!stderr.contains("hunter2"), "{stderr}");
        assert_eq!(code, Some(2));
    }
}

/// libpq finds a socket by its directory.
#[test]
fn a_directory_stands_for_the_socket_of_postgres_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let listens = |protocol: &str, listen: &str| {
        let text = format!(
            "[[service]]\nname = \"x\"\nprotocol = \"{protocol}\"\nlisten = [\"unix:{listen}\"]\n\
             [service.discovery]\nkind = \"static\"\nnodes = [\"10.0.1.1:1\"]\n"
        );
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, text).unwrap();
        let loaded = config::load(&file).map_err(|error| error.to_string())?;
        Ok::<_, String>(loaded.config.services[0].listen.primary[0].to_string())
    };
    let existing = dir.path().display().to_string();
    let named = |dir: &str| Ok(format!("unix:{dir}/.s.PGSQL.5432"));
    assert_eq!(listens("postgres", &existing), named(&existing));
    assert_eq!(listens("postgres", "/run/later/"), named("/run/later"));
    let plain = listens("postgres", "/run/later");
    assert_eq!(plain, Ok("unix:/run/later".to_owned()));
    assert!(listens("tcp", "/run/later/").is_err());
}

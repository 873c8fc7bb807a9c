//! Where the config and the admin socket are.

use std::path::{Path, PathBuf};

use super::AdminArgs;
use crate::admin::spec::AdminSpec;
use crate::config::{self, LoadError};

const VARIABLE: &str = "PILOTFISH_CONFIG";
const PLACES: [&str; 2] = ["./proxy.toml", "/etc/pilotfish/proxy.toml"];

/// The config to use: what `-c` names, else `$PILOTFISH_CONFIG`, else the first file that exists
/// among the usual places.
///
/// # Errors
/// There is none; the text lists where it was looked for.
pub fn config(named: Option<&Path>) -> Result<PathBuf, LoadError> {
    let variable = std::env::var_os(VARIABLE);
    let found = search(named, variable.map(PathBuf::from), |path| path.exists());
    found.ok_or_else(|| LoadError::NotFound {
        places: format!("-c FILE, ${VARIABLE}, {}", PLACES.join(", ")),
    })
}

/// What somebody named is taken even when it does not exist: falling back to another file would
/// hide the mistake.
fn search(
    named: Option<&Path>,
    variable: Option<PathBuf>,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let variable = variable.filter(|path| !path.as_os_str().is_empty());
    let usual = || PLACES.iter().map(PathBuf::from).find(|path| exists(path));
    named.map(Path::to_owned).or(variable).or_else(usual)
}

/// The running process' admin socket: `--socket`, else the config's, else the default. Mistakes
/// elsewhere in the config do not matter here, nor do secrets that this user may not read.
///
/// # Errors
/// `-c` names a file that cannot be read.
pub fn admin_socket(args: &AdminArgs) -> Result<PathBuf, LoadError> {
    if let Some(socket) = &args.socket {
        return Ok(socket.clone());
    }
    let named = args.config.config.as_deref();
    let text = config(named).and_then(|path| config::read_text(&path));
    match text {
        Err(error) if named.is_some() => Err(error),
        text => {
            let socket = text.ok().as_deref().and_then(config::admin_socket);
            Ok(socket.unwrap_or_else(|| AdminSpec::default_socket().to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_places() {
        let some = |text: &str| Some(PathBuf::from(text));
        let both = |_: &Path| true;
        let etc = |path: &Path| path.starts_with("/etc");
        assert_eq!(search(Some(Path::new("c")), some("v"), both), some("c"));
        assert_eq!(search(None, some("v"), |_| false), some("v"));
        assert_eq!(search(None, some(""), both), some("./proxy.toml"));
        assert_eq!(search(None, None, etc), some("/etc/pilotfish/proxy.toml"));
        assert_eq!(search(None, None, |_| false), None);
    }

    #[test]
    fn the_socket_of_a_config_with_mistakes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.toml");
        std::fs::write(
            &file,
            "workers = \"x\"\n[admin]\nsocket = \"/tmp/a.sock\"\n",
        )
        .unwrap();
        let args = |socket: Option<&str>, config| AdminArgs {
            socket: socket.map(PathBuf::from),
            config: super::super::ConfigArg {
                config: Some(config),
            },
        };
        let found = |args| admin_socket(&args).map_err(|e| e.to_string());
        assert_eq!(
            found(args(None, file.clone())).unwrap(),
            Path::new("/tmp/a.sock")
        );
        assert_eq!(found(args(Some("/b"), file)).unwrap(), Path::new("/b"));
        assert!(
            found(args(None, dir.path().join("none")))
                .unwrap_err()
                .contains("none")
        );
    }
}

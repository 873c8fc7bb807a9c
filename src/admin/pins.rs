//! The pins, kept over restarts: an operator's word that a restart forgets would be worse than none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::error;

use crate::monitor::pin::Pin;

/// Where state is kept that outlives the process; systemd says where with `StateDirectory=`.
const STATE_DIR: &str = "/var/lib/pilotfish";
/// A file that is larger was not written by us.
const LARGEST: u64 = 1 << 20;

/// All pins, and their file. There is one per admin socket: two sidecars on a host are two.
#[derive(Debug)]
pub struct Pins {
    file: PathBuf,
    /// Why the file could not be read.
    unreadable: Option<String>,
    pins: Mutex<BTreeMap<String, Pin>>,
}

impl Pins {
    /// Reads what the process before left for the admin socket at `socket`. What cannot be read is set
    /// aside and said: the sidecar still has to start.
    pub fn load(socket: &Path) -> Self {
        let dir = std::env::var_os("STATE_DIRECTORY").map_or_else(|| STATE_DIR.into(), first_of);
        Self::load_from(dir.join(file_name(socket)))
    }

    fn load_from(file: PathBuf) -> Self {
        let (pins, unreadable) = match read(&file) {
            Ok(pins) => (pins, None),
            Err(why) => {
                let aside = file.with_extension("broken");
                error!(
                    event = "state-unreadable", file = %file.display(), %why,
                    "the pins cannot be read; the file is kept as .broken"
                );
                let _ = fs::rename(&file, aside);
                (BTreeMap::new(), Some(why))
            }
        };
        Self {
            file,
            unreadable,
            pins: Mutex::new(pins),
        }
    }

    /// Takes the pins of the process before, which knew best. They are written down again: the file may
    /// have another name now.
    pub fn inherit(&self, inherited: BTreeMap<String, Pin>) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if *pins == inherited {
            return;
        }
        *pins = inherited;
        if let Err(why) = write(&self.file, &pins) {
            error!(
                event = "state-unwritable", file = %self.file.display(), %why,
                "the pins stand, and a restart will forget them"
            );
        }
    }

    /// All of them, by service.
    pub fn all(&self) -> BTreeMap<String, Pin> {
        let pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.clone()
    }

    pub fn of(&self, service: &str) -> Option<Pin> {
        let pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.get(service).cloned()
    }

    /// Why what the process before left could not be read, if so.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// Where they are kept.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Keeps `pin` for `service`, or keeps none, and then makes it true with `apply`: in the order of
    /// the file, whoever else wants something. When it returns, a crash of this host changes nothing
    /// about it. It waits for the disk.
    ///
    /// # Errors
    /// When it could not be written; then nothing has changed.
    pub fn set(
        &self,
        service: &str,
        pin: Option<&Pin>,
        apply: impl FnOnce(),
    ) -> Result<(), String> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = pins.clone();
        match pin {
            Some(pin) => next.insert(service.to_owned(), pin.clone()),
            None => next.remove(service),
        };
        write(&self.file, &next).map_err(|e| format!("{}: {e}", self.file.display()))?;
        *pins = next;
        apply();
        Ok(())
    }
}

/// `STATE_DIRECTORY` is a list, separated by colons (systemd.exec(5)).
fn first_of(dirs: std::ffi::OsString) -> PathBuf {
    let text = dirs.to_string_lossy();
    PathBuf::from(text.split(':').next().unwrap_or(STATE_DIR))
}

/// `/run/pilotfish/admin.sock` -> `pins-run-pilotfish-admin.sock.json`.
fn file_name(socket: &Path) -> String {
    let text = socket.to_string_lossy();
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "._".contains(c) => c,
        _ => '-',
    };
    let mut name: String = text.chars().map(plain).collect();
    // Names of files are bounded, and the end of a path says the most.
    let cut = name.len().saturating_sub(200);
    name.drain(..cut);
    format!(
        "pins{}{name}.json",
        if name.starts_with('-') { "" } else { "-" }
    )
}

fn read(file: &Path) -> Result<BTreeMap<String, Pin>, String> {
    let size = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.to_string()),
        Ok(data) => data.len(),
    };
    if size > LARGEST {
        return Err(format!("{size} bytes are no list of pins"));
    }
    let text = fs::read(file).map_err(|e| e.to_string())?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

/// Beside the file first, so that a crash leaves the old one or the new one.
fn write(file: &Path, pins: &BTreeMap<String, Pin>) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let beside = file.with_extension("new");
    let mut new = File::create(&beside)?;
    new.write_all(&serde_json::to_vec_pretty(pins)?)?;
    new.sync_all()?;
    fs::rename(&beside, file)?;
    match file.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
impl Pins {
    /// In a directory that nobody else has.
    pub fn scratch() -> Self {
        let dir = tempfile::tempdir().expect("there is room for an empty directory");
        Self::load_from(dir.keep().join("pins.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Pin {
        Pin {
            address: text.parse().unwrap(),
            uid: 0,
            since: "2026-01-01T00:00:00.000Z".into(),
        }
    }

    #[test]
    fn pins_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("below").join("pins.json");
        let pins = Pins::load_from(file.clone());
        assert_eq!(pins.of("cache"), None);
        pins.set("cache", Some(&pin("10.0.0.1:6379")), || ())
            .unwrap();
        pins.set("shop", Some(&pin("10.0.0.2:3306")), || ())
            .unwrap();
        pins.set("shop", None, || ()).unwrap();
        let again = Pins::load_from(file);
        assert_eq!(again.of("cache"), Some(pin("10.0.0.1:6379")));
        assert_eq!(again.of("shop"), None);
    }

    #[test]
    fn pins_are_handed_over() {
        let dir = tempfile::tempdir().unwrap();
        let old = Pins::load_from(dir.path().join("old.json"));
        old.set("cache", Some(&pin("10.0.0.1:6379")), || ())
            .unwrap();
        let file = dir.path().join("new.json");
        let new = Pins::load_from(file.clone());
        new.set("shop", Some(&pin("10.0.0.2:3306")), || ()).unwrap();
        new.inherit(old.all());
        assert_eq!(new.all(), old.all());
        assert_eq!(Pins::load_from(file).all(), old.all());
    }

    #[test]
    fn a_half_written_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pins.json");
        for text in ["{\"cache\":{\"addr", "", "[]", "\0\0\0"] {
            fs::write(&file, text).unwrap();
            let pins = Pins::load_from(file.clone());
            assert_eq!(pins.of("cache"), None);
            assert!(pins.unreadable().is_some());
            assert_eq!(
                fs::read(dir.path().join("pins.broken")).unwrap(),
                text.as_bytes()
            );
            pins.set("cache", Some(&pin("10.0.0.1:6379")), || ())
                .unwrap();
            assert!(Pins::load_from(file.clone()).of("cache").is_some());
        }
    }

    #[test]
    fn what_cannot_be_kept_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file").join("pins.json");
        fs::write(dir.path().join("file"), "").unwrap();
        let pins = Pins::load_from(file);
        assert!(
            pins.set("cache", Some(&pin("10.0.0.1:6379")), || ())
                .is_err()
        );
        assert_eq!(pins.of("cache"), None);
    }

    #[test]
    fn each_admin_socket_has_its_file() {
        for (socket, name) in [
            (
                "/run/pilotfish/admin.sock",
                "pins-run-pilotfish-admin.sock.json",
            ),
            ("a b/c", "pins-a-b-c.json"),
        ] {
            assert_eq!(file_name(Path::new(socket)), name);
        }
        assert!(file_name(Path::new(&"x/".repeat(2000))).len() < 255);
    }
}

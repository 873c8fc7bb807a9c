//! A headless Chromium, told what to do over the DevTools protocol.
//!
//! The protocol's "pipe" transport is used: messages in JSON, each ended by a zero byte, on descriptors 3 and 4.
//! Methods and events: <https://chromedevtools.github.io/devtools-protocol/>.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use serde_json::{Value as Json, json};

use crate::process::{find_program, spawn};
use crate::{scratch, wait};

/// For an answer of the browser, which is slow to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ARGUMENTS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
];

/// Chromium with arguments that keep it quiet and in `dir`.
fn chromium(dir: &scratch::Dir) -> Result<Command> {
    let mut command = Command::new(find_program("setpriv")?);
    // Descriptors 3 and 4 are ours; it takes no notice of them unless it is told to.
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "sh",
        "-c",
        "exec \"$@\" 3<&0 4>&1 </dev/null >&2",
    ]);
    command
        .arg("sh")
        .arg(find_program("chromium")?)
        .args(ARGUMENTS);
    command.arg(format!("--user-data-dir={}", dir.path().display()));
    Ok(command)
}

#[derive(Default)]
struct Heard {
    messages: Vec<Json>,
    over: bool,
}

/// What the browser has said.
#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    more: Condvar,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, output: ChildStdout) {
        for message in BufReader::new(output).split(0).map_while(Result::ok) {
            if let Ok(message) = serde_json::from_slice(&message) {
                self.lock().messages.push(message);
                self.more.notify_all();
            }
        }
        self.lock().over = true;
        self.more.notify_all();
    }

    /// Waits for the answer to request `id`.
    fn answer(&self, id: u64) -> Result<Json> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = self.lock();
        loop {
            if let Some(answer) = heard.messages.iter().find(|message| message["id"] == id) {
                return Ok(answer.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if heard.over || left.is_zero() {
                bail!("chromium did not answer");
            }
            heard = self
                .more
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A browser with one page. It ends when dropped.
pub struct Browser {
    child: Child,
    pid: Pid,
    input: ChildStdin,
    ear: Arc<Ear>,
    session: String,
    next: u64,
    _dir: scratch::Dir,
}

impl Browser {
    /// With an empty page of this size.
    pub fn start(width: u32, height: u32) -> Result<Self> {
        Self::start_with(&[], width, height)
    }

    /// One whose user has switched scripts off: ask it for its [`Self::document`] only.
    pub fn start_without_scripts(width: u32, height: u32) -> Result<Self> {
        Self::start_with(&["--blink-settings=scriptEnabled=false"], width, height)
    }

    fn start_with(arguments: &[&str], width: u32, height: u32) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let mut command = chromium(&dir)?;
        command.args(arguments);
        command.arg("--remote-debugging-pipe").arg("about:blank");
        let log = std::fs::File::create(dir.join("chromium.log"))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = spawn::spawn(command).context("starting chromium")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a child without a pid")?;
        scratch::remember_child(pid);
        let input = child.stdin.take().context("no pipe to chromium")?;
        let output = child.stdout.take().context("no pipe from chromium")?;
        let ear = Arc::new(Ear::default());
        let listener = ear.clone();
        std::thread::spawn(move || listener.listen(output));
        let mut browser = Self {
            child,
            pid,
            input,
            ear,
            session: String::new(),
            next: 1,
            _dir: dir,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session = attached["sessionId"]
            .as_str()
            .context("no session")?
            .to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        browser.resize(width, height)?;
        Ok(browser)
    }

    /// One method of the protocol, and its result.
    pub fn call(&mut self, method: &str, params: &Json) -> Result<Json> {
        let id = self.next;
        self.next += 1;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input
            .write_all(&bytes)
            .context("talking to chromium")?;
        let answer = self.ear.answer(id).with_context(|| method.to_owned())?;
        if !answer["error"].is_null() {
            bail!("{method}: {}", answer["error"]);
        }
        Ok(answer["result"].clone())
    }

    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        Ok(())
    }

    /// `light` or `dark`, as the user's system would say.
    pub fn colour_scheme(&mut self, scheme: &str) -> Result<()> {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &media)?;
        Ok(())
    }

    /// Goes to `url`.
    pub fn go(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", &json!({"url": url}))?;
        match opened["errorText"].as_str() {
            Some(error) => bail!("{url}: {error}"),
            None => Ok(()),
        }
    }

    /// The document as it stands, whatever made it so.
    pub fn document(&mut self) -> Result<String> {
        let root = self.call("DOM.getDocument", &json!({"depth": 0}))?;
        let node = json!({"nodeId": root["root"]["nodeId"]});
        let html = self.call("DOM.getOuterHTML", &node)?;
        Ok(html["outerHTML"].as_str().unwrap_or_default().to_owned())
    }

    /// Goes to `url`, and waits until the document is there.
    pub fn open(&mut self, url: &str) -> Result<()> {
        self.go(url)?;
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
    }

    /// What an expression is on the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Json> {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &params)?;
        if !answer["exceptionDetails"].is_null() {
            bail!("{expression}: {}", answer["exceptionDetails"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true; the error shows the page's text.
    pub fn wait_for(&mut self, expression: &str) -> Result<()> {
        let outcome = wait::until_true(expression, PATIENCE, || {
            Ok(self.evaluate(expression)? == json!(true))
        });
        outcome.map_err(|error| {
            let text = self.evaluate("document.body ? document.body.innerText : ''");
            error.context(format!("the page says {text:?}"))
        })
    }

    /// Writes a picture of the page, of what is visible or of all of it, as PNG.
    pub fn screenshot(&mut self, path: &Path, all: bool) -> Result<()> {
        let params =
            json!({"format": "png", "captureBeyondViewport": all, "optimizeForSpeed": false});
        let answer = self.call("Page.captureScreenshot", &params)?;
        let data = answer["data"].as_str().context("no picture")?;
        std::fs::write(path, base64(data)?).with_context(|| format!("writing {}", path.display()))
    }

    fn events(&self, method: &str) -> Vec<Json> {
        let heard = self.ear.lock();
        let events = heard.messages.iter();
        let events = events.filter(|message| message["method"] == method);
        events.map(|event| event["params"].clone()).collect()
    }

    /// The addresses of everything the page has asked for.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.events("Network.requestWillBeSent").into_iter();
        let url = |event: Json| event["request"]["url"].as_str().map(ToOwned::to_owned);
        sent.filter_map(url).collect()
    }

    /// Everything that a developer would see in the console: messages, exceptions, violations of the policy.
    pub fn complaints(&self) -> Vec<String> {
        let kinds = [
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ];
        let all = kinds.into_iter().flat_map(|kind| self.events(kind));
        all.map(|event| event.to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its children end with it; asked nicely, it waits for them.
        self.session.clear();
        let _ = self.call("Browser.close", &json!({}));
        let ended = || Ok(self.child.try_wait()?.is_some());
        let _ = wait::until_true("chromium to end", Duration::from_secs(5), ended);
        let _ = self.child.kill();
        let _ = self.child.wait();
        scratch::forget_child(self.pid);
    }
}

fn base64(text: &str) -> Result<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = LETTERS.iter().position(|known| *known == letter);
        let value = value.context("not base64")?;
        bits = bits << 6 | u32::try_from(value)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_base64() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).unwrap(), plain.as_bytes());
        }
        assert!(base64("*").is_err());
    }
}

//! `pilotfish status --watch`: the status again and again, until Ctrl-C.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::status;

/// Between two looks.
const PACE: Duration = Duration::from_secs(1);

/// A screen of its own, without cursor; and everything back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
/// Clears the rest of a line, and of the screen.
const END_OF_LINE: &str = "\x1b[K";
const END_OF_SCREEN: &str = "\x1b[J";

/// Draws the status on the terminal anew every second; where stdout is none, prints one after the other.
/// Ends with SIGINT or SIGTERM, and when nobody reads any more.
///
/// # Errors
/// When it cannot be asked for the first time. Later that is shown, for it may come back.
pub fn watch(socket: &Path, service: Option<&str>, json: bool) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            ended = pages(socket, service, json) => ended,
        }
    });
    // A question that is still under way is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn pages(socket: &Path, service: Option<&str>, json: bool) -> Result<(), String> {
    let ask = || {
        let (socket, service) = (socket.to_owned(), service.map(ToOwned::to_owned));
        let asking = move || status::text(&socket, service.as_deref(), json);
        tokio::task::spawn_blocking(asking)
    };
    let mut first = Some(joined(ask().await)?);
    let mut screen = io::stdout().is_terminal().then(Screen::enter);
    loop {
        let page = match first.take() {
            Some(page) => Ok(page),
            None => joined(ask().await),
        };
        let page = page.unwrap_or_else(|error| format!("pilotfish: {error}\n"));
        let shown = match &mut screen {
            Some(screen) => screen.draw(&page),
            None => print(&format!("{}\n\n", page.trim_end())),
        };
        if shown.is_err() {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

fn joined(asked: Result<Result<String, String>, tokio::task::JoinError>) -> Result<String, String> {
    asked.unwrap_or_else(|error| Err(error.to_string()))
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// The terminal, as long as it is ours.
struct Screen;

impl Screen {
    fn enter() -> Self {
        // What cannot be written now cannot be drawn later either, which ends it.
        let _ = print(ENTER);
        Self
    }

    fn draw(&mut self, page: &str) -> io::Result<()> {
        let size = rustix::termios::tcgetwinsize(io::stdout());
        let (rows, columns) = size.map_or((0, 0), |size| (size.ws_row, size.ws_col));
        print(&frame(page, rows.into(), columns.into()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = print(LEAVE);
    }
}

/// `page` as it is drawn over the one before, cut to the terminal. Zero: its size is not known.
fn frame(page: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = page.trim_end().lines().collect();
    let room = if rows == 0 { lines.len() } else { rows };
    let hidden = lines.len().saturating_sub(room);
    // The last row says what is missing.
    let kept = if hidden == 0 { lines.len() } else { room - 1 };
    let mut drawn: Vec<String> = lines[..kept]
        .iter()
        .map(|line| cut(line, columns))
        .collect();
    if hidden > 0 {
        drawn.push(cut(
            &format!("… {} lines more", lines.len() - kept),
            columns,
        ));
    }
    let text = drawn.join(&format!("{END_OF_LINE}\r\n"));
    format!("{HOME}{text}{END_OF_LINE}{END_OF_SCREEN}")
}

fn cut(line: &str, columns: usize) -> String {
    match columns {
        0 => line.to_owned(),
        columns => line.chars().take(columns).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_to_the_terminal() {
        let page = "one\ntwo and more\nthree\n";
        let plain = |rows, columns| {
            let frame = frame(page, rows, columns);
            let frame = frame.replace(END_OF_LINE, "").replace(END_OF_SCREEN, "");
            frame
                .replace(HOME, "")
                .split("\r\n")
                .map(ToOwned::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(plain(0, 0), ["one", "two and more", "three"]);
        assert_eq!(plain(3, 4), ["one", "two ", "thre"]);
        assert_eq!(plain(2, 80), ["one", "… 2 lines more"]);
        assert_eq!(plain(1, 5), ["… 3 l"]);
    }

    #[test]
    fn it_is_drawn_over_what_was_there() {
        let frame = frame("a\nb", 24, 80);
        assert_eq!(frame, "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
    }
}

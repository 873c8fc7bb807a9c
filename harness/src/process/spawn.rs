//! The one thread that starts children; see the parent module for why.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

static SPAWNER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

pub fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = channel();
    {
        let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = match spawner.take() {
            Some(jobs) => jobs,
            None => start()?,
        };
        let sent = jobs.send(Job { command, reply });
        *spawner = Some(jobs);
        sent.map_err(|_| io::Error::other("the thread that starts children is gone"))?;
    }
    answer
        .recv()
        .map_err(|_| io::Error::other("the thread that starts children is gone"))?
}

fn start() -> io::Result<Sender<Job>> {
    let (jobs, inbox): (Sender<Job>, Receiver<Job>) = channel();
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for mut job in inbox {
                let _ = job.reply.send(job.command.spawn());
            }
        })?;
    Ok(jobs)
}

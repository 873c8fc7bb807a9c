//! The last part: a site in two regions moves through DNS, its sidecar is killed on the way, and it moves back.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value as Json;

use super::story::count;
use crate::dns::faults::{Fault, On};
use crate::dns::http::{HttpServer, Response};
use crate::dns::site::{GRA, RBX, Site};
use crate::dns::watch::{AnswerWatch, Answers};
use crate::process::spawn::spawn;
use crate::report::{Timeline, table, thousands};
use crate::sidecar::{Config, Service, Sidecar, Until};
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long everybody is listened to when a move is said to be over.
const LISTEN: Duration = Duration::from_millis(1500);
/// A resolver counts whole seconds, and may keep an answer so much longer than its TTL.
const ROUNDING: Duration = Duration::from_secs(1);
/// Whoever does not say it may move the site: `region` asks otherwise.
const CUTOVER: [&str; 4] = ["cutover", "--to", "rbx", "--yes"];

/// Everything of this act; dropped from top to bottom.
struct Stage {
    rbx: Sidecar,
    /// Without `[cutover]`: it is asked about its region.
    _gra: Sidecar,
    _databases: [HttpServer; 2],
    site: Site,
    binary: std::path::PathBuf,
}

/// One `pilotfish region`: what it printed, line by line, and how it ended.
struct Said {
    code: Option<i32>,
    lines: Vec<(Instant, String)>,
}

struct Running {
    child: std::process::Child,
    lines: JoinHandle<Vec<(Instant, String)>>,
}

/// What is judged in the end.
struct Played {
    t0: Instant,
    timeline: Timeline,
    /// When the first move was said to be over, and when the second began and was over.
    done: Instant,
    back: (Instant, Instant),
    serials: [u32; 3],
    /// The unfinished run was shown, and nothing else could begin.
    blocked: bool,
    runs: Json,
}

/// Plays and tells it; `true` when every guarantee held.
pub(super) fn perform(binary: &Path, (number, of): (usize, usize)) -> Result<bool> {
    println!("\n== {number} of {of}: the site moves to another region, and back home ==\n");
    println!(
        "Two regions, gra and rbx, with a sidecar each; BIND as primary and secondary, TTL 1 s;"
    );
    println!("Unbound as everybody's resolver. Three clients ask for A and AAAA without a break:");
    println!("  ns1, ns2  the primary and the secondary");
    println!("  resolver  Unbound, which keeps every answer for its TTL; it knows no root,");
    println!("            so that no signature can be followed, as each move notes\n");
    let mut stage = Stage::set_up(binary)?;
    let watches = [
        AnswerWatch::start(stage.site.primary.addr, false)?,
        AnswerWatch::start(stage.site.secondary.addr, false)?,
        AnswerWatch::start(stage.site.unbound.addr, true)?,
    ];
    let played = stage.play()?;
    let mut answers = Vec::new();
    for watch in watches {
        answers.push(watch.stop()?);
    }
    tell(played, &answers)
}

impl Stage {
    fn set_up(binary: &Path) -> Result<Self> {
        let site = Site::start(&["shop 1 A 192.0.2.10", "shop 1 AAAA 2001:db8::10"], false)?;
        let database = || HttpServer::start(|_| Response::empty(200));
        let databases = [database()?, database()?];
        let config = |region: &str, database: &HttpServer| -> Result<Config> {
            let service = Service::new("db", "tcp")?
                .discover("kind", "static")
                .discover_all("nodes", &[database.addr]);
            let config = Config::new()?.line(&format!("region = \"{region}\""));
            Ok(config.service(service))
        };
        let gra = config("gra", &databases[0])?;
        let mut rbx = config("rbx", &databases[1])?;
        let checks = [&gra, &rbx].map(|it| format!("http://{}/healthz", it.http));
        let section = site.section([Some(&checks[0]), Some(&checks[1])]);
        rbx.sections.push(section.replace("ttl = 2\n", "ttl = 1\n"));
        Ok(Self {
            rbx: Sidecar::start(binary, rbx, Until::Healthy)?,
            _gra: Sidecar::start(binary, gra, Until::Healthy)?,
            _databases: databases,
            site,
            binary: binary.to_owned(),
        })
    }

    fn begin(&self, args: &[&str]) -> Result<Running> {
        let mut command = Command::new(&self.binary);
        command.arg("region").args(args).arg("--socket");
        command.arg(self.rbx.admin_socket());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut child = spawn(command).context("pilotfish region")?;
        let out = child.stdout.take().context("it was asked to be piped")?;
        let lines = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.map(|line| (Instant::now(), line)).collect()
        });
        Ok(Running { child, lines })
    }

    fn region(&self, args: &[&str]) -> Result<Said> {
        self.begin(args)?.end()
    }

    fn json(&self, args: &[&str]) -> Result<Json> {
        let said = self.region(args)?;
        let text: String = said.lines.into_iter().map(|(_, line)| line).collect();
        serde_json::from_str(&text).with_context(|| format!("region {args:?} said {text:?}"))
    }

    fn play(&mut self) -> Result<Played> {
        let mut serials = [self.site.serial()?; 3];
        let preview = self.json(&["plan", "--to", "rbx", "--json"])?;
        let stopped = &preview["stopped_by"];
        ensure!(*stopped == Json::Array(Vec::new()), "stopped by {stopped}");
        ensure!(self.site.serial()? == serials[0], "a plan changed the zone");
        let gates = preview["verdicts"].as_array().map_or(0, Vec::len);
        let t0 = Instant::now();
        let mut timeline = Timeline::new(t0);
        let plan = format!("region plan --to rbx: {gates} gates, none in the way, nothing changed");
        timeline.add(t0, "we", plan);

        self.cut_short(&mut timeline)?;
        let blocked = self.is_blocked(&mut timeline)?;
        timeline.add(Instant::now(), "we", "region resume");
        add(&mut timeline, self.finished(&["resume"])?);
        let done = Instant::now();
        serials[1] = self.site.serial()?;
        std::thread::sleep(LISTEN);

        let back = Instant::now();
        timeline.add(back, "we", "region failback: back home, to gra");
        add(&mut timeline, self.finished(&["failback", "--yes"])?);
        let home = Instant::now();
        serials[2] = self.site.serial()?;
        std::thread::sleep(LISTEN);
        Ok(Played {
            t0,
            timeline,
            done,
            back: (back, home),
            serials,
            blocked,
            runs: self.json(&["history", "--json"])?,
        })
    }

    /// Begins the move and kills the sidecar when the change has arrived, and it has not heard of it.
    fn cut_short(&mut self, timeline: &mut Timeline) -> Result<()> {
        let faults = &self.site.faults;
        // Whether the change would be taken is asked twice, for the shown plan and for the run.
        for _ in 0..2 {
            faults.add(On::Write, Fault::Nothing);
        }
        faults.add(On::Write, Fault::After(Response::Silence));
        timeline.add(Instant::now(), "we", "region cutover --to rbx");
        let moving = self.begin(&CUTOVER)?;
        wait::until_true("the change to arrive, unheard", PATIENCE, || {
            let journal = std::fs::read_to_string(self.site.journal())?;
            let sent = journal.contains("\"event\":\"sending\"");
            Ok(sent
                && self.site.served(self.site.primary.addr)? == RBX.map(|it| vec![it.to_owned()]))
        })?;
        self.rbx.server().kill()?;
        let deed = "kill -9 of the sidecar: ns1 has the change, the answer to it was lost";
        let killed = Instant::now();
        add(timeline, moving.end()?.lines);
        timeline.add(killed, "we", deed);
        self.rbx.restart()?;
        timeline.add(Instant::now(), "we", "start it again");
        Ok(())
    }

    /// What was begun is shown, and nothing else begins before it is over.
    fn is_blocked(&self, timeline: &mut Timeline) -> Result<bool> {
        let status = self.json(&["status", "--json"])?;
        let phase = status["run"]["phase"].as_str().unwrap_or("nothing");
        let what = format!("region status: unfinished, in phase {phase}");
        timeline.add(Instant::now(), "rbx", what);
        let other = self.region(&CUTOVER)?;
        let refused = other.code == Some(3);
        let what = match refused {
            true => "refused, the first is unfinished",
            false => "NOT refused",
        };
        timeline.add(
            Instant::now(),
            "rbx",
            format!("a second region cutover: {what}"),
        );
        Ok(status["run"].is_object() && refused)
    }

    fn finished(&self, args: &[&str]) -> Result<Vec<(Instant, String)>> {
        let said = self.region(args)?;
        if said.code != Some(0) {
            bail!(
                "region {args:?} ended with {:?}: {:#?}",
                said.code,
                said.lines
            );
        }
        Ok(said.lines)
    }
}

impl Running {
    fn end(mut self) -> Result<Said> {
        let status = self.child.wait().context("pilotfish region")?;
        let lines = self.lines.join();
        Ok(Said {
            code: status.code(),
            lines: lines.map_err(|_| anyhow!("the reader of pilotfish region died"))?,
        })
    }
}

/// The lines of a run begin with the time of day; those of a plan or of a result do not.
fn add(timeline: &mut Timeline, lines: Vec<(Instant, String)>) {
    for (at, line) in lines {
        let Some((time, said)) = line.split_once(' ') else {
            continue;
        };
        if time.len() == "00:00:00".len() && time.matches(':').count() == 2 {
            timeline.add(at, "rbx", said);
        }
    }
}

fn tell(mut played: Played, answers: &[Answers]) -> Result<bool> {
    const NAMES: [&str; 3] = ["ns1", "ns2", "resolver"];
    let (t0, timeline) = (played.t0, &mut played.timeline);
    for (name, heard) in NAMES.into_iter().zip(answers) {
        for (region, who, since) in [(RBX, "rbx", t0), (GRA, "gra", played.back.0)] {
            if let Some(at) = heard.first_of(region, since) {
                timeline.add(at, name, format!("answers with {who}, A and AAAA"));
            }
        }
    }
    print!("{}", timeline.render());
    println!("\n{}", table(&finish_lines(&played.runs)?));
    let head = [
        "",
        "rounds",
        "unanswered",
        "empty",
        "mixed",
        "old after done",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let forever = Instant::now();
    let stale = |it: &Answers, late: Duration| {
        it.of(GRA, (played.done + late, played.back.0))
            + it.of(RBX, (played.back.1 + late, forever))
    };
    for (name, heard) in NAMES.into_iter().zip(answers) {
        let mut row = vec![name.to_owned()];
        let counts = [heard.rounds(), heard.unanswered, heard.empty()];
        row.extend(counts.map(count));
        // A resolver forgets the two families one after the other.
        row.push(match name {
            "resolver" => "-".to_owned(),
            _ => count(heard.mixed(&[GRA, RBX])),
        });
        row.push(count(stale(heard, Duration::ZERO)));
        rows.push(row);
    }
    println!("{}", table(&rows));
    Ok(judge(&played, answers, &stale))
}

fn judge(
    played: &Played,
    answers: &[Answers],
    stale: &dyn Fn(&Answers, Duration) -> usize,
) -> bool {
    let mut all = true;
    let mut check = |good: bool, what: &str| {
        all &= good;
        println!("  {}  {what}", if good { "held  " } else { "BROKEN" });
    };
    let heard = answers.iter().all(|it| it.rounds() > 0);
    check(
        heard && answers.iter().all(|it| it.empty() + it.unanswered == 0),
        "no question was answered with nothing",
    );
    check(
        answers.iter().take(2).all(|it| it.mixed(&[GRA, RBX]) == 0),
        "A and AAAA of a name server are always of the same region",
    );
    check(
        answers
            .iter()
            .take(2)
            .all(|it| stale(it, Duration::ZERO) == 0)
            && answers.iter().all(|it| stale(it, ROUNDING) == 0),
        "done is done: no name server tells of the old region, the resolver for one more second at most",
    );
    check(
        played.blocked,
        "what the crash left was shown, and nothing else could begin",
    );
    let [first, second, third] = played.serials;
    check(
        second == first + 1 && third == second + 1,
        "each move is one change of the zone, the interrupted one too",
    );
    println!("  The site is home again, in gra.");
    all
}

/// When each of them was crossed, by the clock and since the run began.
fn finish_lines(runs: &Json) -> Result<Vec<Vec<String>>> {
    let runs = runs.as_array().context("a history is a list")?;
    ensure!(runs.len() == 2, "there were {} runs", runs.len());
    let mut head = vec!["finish line".to_owned()];
    for run in runs {
        let text = |key: &str| run[key].as_str().unwrap_or("?");
        let (way, to, outcome) = (text("way"), text("to"), text("outcome"));
        head.push(format!("{way} to {to}: {outcome}"));
        head.push("ms".to_owned());
    }
    let mut rows = vec![head];
    for (key, name) in [
        ("accepted", "accepted by the primary"),
        ("deployed", "deployed, as it says (BIND never does)"),
        ("served", "served by every name server"),
        ("converged", "old TTL passed"),
    ] {
        let mut row = vec![name.to_owned()];
        for run in runs {
            let begun = run["begun"].as_str().and_then(of_day);
            let crossed = run["finish"][key].as_str();
            row.push(crossed.and_then(|it| it.get(11..23)).unwrap_or("-").into());
            let since = crossed.and_then(of_day).zip(begun);
            // Past midnight the day begins anew.
            let since = since.map(|(at, begun)| (at - begun).rem_euclid(86_400_000));
            row.push(since.map_or("-".into(), thousands));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Milliseconds of the day of an RFC 3339 time.
fn of_day(time: &str) -> Option<i64> {
    let part = |range: std::ops::Range<usize>| time.get(range)?.parse::<i64>().ok();
    let seconds = (part(11..13)? * 60 + part(14..16)?) * 60 + part(17..19)?;
    Some(seconds * 1000 + part(20..23).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::of_day;

    #[test]
    fn times_of_day() {
        assert_eq!(of_day("2026-11-21T01:02:03.456Z"), Some(3_723_456));
        assert_eq!(of_day("2026-11-21T00:00:01Z"), Some(1000));
        assert_eq!(of_day("now"), None);
    }
}

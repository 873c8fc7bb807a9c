//! One bounded run of `redis-benchmark`, and what it said.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pilotfish_harness::process::{Launch, find_program};
use pilotfish_harness::resp::Target;
use pilotfish_harness::scratch;

/// Against a server that is gone it would try for ever.
const LIMIT: Duration = Duration::from_secs(90);

const COMMANDS: [&str; 2] = ["SET", "GET"];

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub requests: u32,
    /// Requests in a second, over all commands.
    pub rate: f64,
}

/// SET and then GET, `each` times.
///
/// # Errors
/// When it cannot be run, does not end in time, or prints what this does not understand.
pub fn run(target: &Target, arguments: &[&str], each: u32) -> Result<Load> {
    let dir = scratch::Dir::new()?;
    let log = dir.join("redis-benchmark.log");
    let mut launch = Launch::new("redis-benchmark", &find_program("redis-benchmark")?, &log)?;
    let command = launch.command();
    match target {
        Target::Tcp(addr) => {
            command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()])
        }
        Target::Unix(path) => command.arg("-s").arg(path),
    };
    command
        .args(["--csv", "-t", "set,get", "-n", &each.to_string()])
        .args(arguments);
    let server = launch.start()?;
    let status = server
        .wait(LIMIT)
        .with_context(|| format!("load on {target}"))?;
    let output = server.log()?;
    if !status.success() {
        bail!("redis-benchmark on {target} failed ({status}): {output}");
    }
    let rates =
        parse(&output).with_context(|| format!("redis-benchmark on {target} said {output:?}"))?;
    Ok(total(&rates, each))
}

/// The rates of [`COMMANDS`]. Since Redis 7 there is a headline and further columns.
fn parse(csv: &str) -> Result<Vec<f64>> {
    let rate = |command: &&str| -> Result<f64> {
        let quoted = format!("\"{command}\",");
        let rest = csv.lines().find_map(|line| line.strip_prefix(&quoted));
        let rest = rest.with_context(|| format!("no line for {command}"))?;
        let word = rest.split(',').next().unwrap_or_default().trim_matches('"');
        let rate: f64 = word
            .parse()
            .with_context(|| format!("the rate of {command}, {word:?}"))?;
        if !(rate.is_finite() && rate > 0.0) {
            bail!("{command} made no progress");
        }
        Ok(rate)
    };
    COMMANDS.iter().map(rate).collect()
}

fn total(rates: &[f64], each: u32) -> Load {
    let seconds: f64 = rates.iter().map(|rate| f64::from(each) / rate).sum();
    let requests = each * u32::try_from(rates.len()).unwrap_or(1);
    Load {
        requests,
        rate: f64::from(requests) / seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_old_and_new_output() {
        let new = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"100.00\",\"0.2\"\n\"GET\",\"300.00\",\"0.1\"\n";
        assert_eq!(parse(new).unwrap(), [100.0, 300.0]);
        assert_eq!(
            parse("\"SET\",\"100.00\"\n\"GET\",\"300.00\"\n").unwrap(),
            [100.0, 300.0]
        );
        // The slower half takes longer: no plain mean.
        assert_eq!(
            total(&[100.0, 300.0], 300),
            Load {
                requests: 600,
                rate: 150.0
            }
        );
    }

    #[test]
    fn half_an_answer_is_an_error() {
        for bad in [
            "",
            "\"SET\",\"100.00\"\n",
            "\"SET\",\"x\"\n\"GET\",\"1\"\n",
            "\"SET\",\"0.00\"\n\"GET\",\"1\"\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}

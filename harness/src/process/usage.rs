//! What a process uses, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// User and system time of all threads, also ended ones, without children. Resolution: one clock tick (10 ms).
pub fn cpu(pid: i32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    // The command's name stands in parentheses and may contain anything.
    let (_, fields) = stat.rsplit_once(')').context("no ')' in /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| -> Result<u64> {
        Ok(fields
            .get(index)
            .context("/proc/PID/stat is too short")?
            .parse()?)
    };
    // proc(5): utime and stime are fields 14 and 15; what follows ')' begins with field 3.
    let total = ticks(11)? + ticks(12)?;
    Ok(Duration::from_secs_f64(
        total as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// [`cpu`] of a process and all its descendants, for servers that fork workers.
pub fn cpu_tree(pid: i32) -> Result<Duration> {
    let mut total = cpu(pid)?;
    for child in children(pid)? {
        total += cpu_tree(child).unwrap_or_default();
    }
    Ok(total)
}

fn children(pid: i32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            list.split_whitespace()
                .filter_map(|word| word.parse::<i32>().ok()),
        );
    }
    Ok(found)
}

/// Resident memory in bytes. Exact: `VmRSS` lags by some pages per thread, so the sum over the mappings is asked first.
pub fn rss(pid: i32) -> Result<u64> {
    let exact = read(pid, "smaps_rollup").and_then(|text| kilobytes(&text, "Rss:"));
    exact.or_else(|_| kilobytes(&read(pid, "status")?, "VmRSS:"))
}

pub fn fds(pid: i32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))
        .with_context(|| format!("counting the descriptors of {pid}"))?
        .count())
}

pub fn threads(pid: i32) -> Result<usize> {
    let status = read(pid, "status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))
        .context("no Threads: line")?;
    Ok(line.trim().parse()?)
}

fn kilobytes(text: &str, key: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .with_context(|| format!("no {key} line"))?;
    let number = line
        .split_whitespace()
        .next()
        .with_context(|| format!("no number after {key}"))?;
    Ok(number.parse::<u64>()? * 1024)
}

fn read(pid: i32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("reading /proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_usage() {
        let me = std::process::id() as i32;
        let end = std::time::Instant::now() + Duration::from_millis(60);
        while std::time::Instant::now() < end {}
        assert!(cpu(me).unwrap() >= Duration::from_millis(20));
        assert!(cpu_tree(me).unwrap() >= cpu(me).unwrap() / 2);
        assert!(rss(me).unwrap() > 500_000);
        assert!(fds(me).unwrap() >= 3);
        assert!(threads(me).unwrap() >= 2);
    }
}

//! What a new config changes. Pure.

use std::sync::Arc;

use super::Config;
use crate::proto::spec::ServiceSpec;
use crate::telemetry::spec::HttpSpec;

/// The difference between what runs and what the file says now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub added: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
    pub changed: Vec<Arc<str>>,
    /// Settings of the process that are followed at once.
    pub followed: Vec<&'static str>,
    /// Settings that only a restart can change.
    pub needs_restart: Vec<&'static str>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the service that runs under this name does not go on as it is.
    pub fn ends(&self, name: &Arc<str>) -> bool {
        self.changed.contains(name) || self.removed.contains(name)
    }

    /// Whether a service has to be started under this name.
    pub fn begins(&self, name: &Arc<str>) -> bool {
        self.changed.contains(name) || self.added.contains(name)
    }

    /// For people, one line per kind of change.
    pub fn lines(&self) -> Vec<String> {
        let named = |what: &str, names: &[Arc<str>]| {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
        };
        let keys = |what: &str, keys: &[&str]| {
            (!keys.is_empty()).then(|| format!("{what}: {}", keys.join(", ")))
        };
        let lines = [
            named("services added", &self.added),
            named("services removed", &self.removed),
            named("services changed", &self.changed),
            keys("settings changed", &self.followed),
            keys("only a restart changes", &self.needs_restart),
        ];
        let lines: Vec<String> = lines.into_iter().flatten().collect();
        match lines.is_empty() {
            true => vec!["nothing changed".to_owned()],
            false => lines,
        }
    }
}

impl Config {
    /// With services for `region`, which the process is in and leaves only when it ends.
    pub fn staying_in(mut self, region: Option<&str>) -> Self {
        for service in &mut self.services {
            service.region = region.map(Into::into);
        }
        self
    }
}

/// From `old`, which runs, to `new`, whose services stay in the region of `old`.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let find =
        |services: &[ServiceSpec], name: &str| services.iter().find(|s| *s.name == *name).cloned();
    let mut diff = Diff::default();
    for service in &new.services {
        match find(&old.services, &service.name) {
            None => diff.added.push(service.name.clone()),
            Some(before) if before != *service => diff.changed.push(service.name.clone()),
            Some(_) => {}
        }
    }
    for service in &old.services {
        if find(&new.services, &service.name).is_none() {
            diff.removed.push(service.name.clone());
        }
    }
    let mut note = |key: &'static str, differs: bool, live: bool| match (differs, live) {
        (true, true) => diff.followed.push(key),
        (true, false) => diff.needs_restart.push(key),
        (false, _) => {}
    };
    let HttpSpec {
        listen,
        agent,
        unhealthy_after,
    } = &new.http;
    note(
        "drain_timeout",
        old.drain_timeout != new.drain_timeout,
        true,
    );
    note(
        "http.unhealthy_after",
        old.http.unhealthy_after != *unhealthy_after,
        true,
    );
    note("name", old.name != new.name, false);
    note("region", old.region != new.region, false);
    note("workers", old.workers != new.workers, false);
    note("http.listen", old.http.listen != *listen, false);
    note("http.agent", old.http.agent != *agent, false);
    note("[admin]", old.admin != new.admin, false);
    note("[log]", old.log != new.log, false);
    note("[cutover]", old.cutover != new.cutover, false);
    diff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const OLD: &str = r#"
region = "gra"
[[service]]
name = "cache"
protocol = "redis"
listen = ["127.0.0.1:6379"]
discovery = { kind = "redis", nodes = ["10.0.0.1:6379"] }
[[service]]
name = "search"
protocol = "tcp"
listen = ["127.0.0.1:9306"]
discovery = { kind = "static", nodes = ["10.0.0.1:9306"] }
"#;

    fn lines(edit: impl Fn(&str) -> String) -> Vec<String> {
        let (old, _) = parse(OLD).unwrap();
        let (new, _) = parse(&edit(OLD)).unwrap();
        let diff = diff(&old, &new.staying_in(old.region.as_deref()));
        assert_eq!(diff.is_empty(), diff.lines() == ["nothing changed"]);
        diff.lines()
    }

    #[test]
    fn what_changes_is_named() {
        assert_eq!(lines(str::to_owned), ["nothing changed"]);
        assert_eq!(lines(|t| format!("# more\n{t}")), ["nothing changed"]);
        assert_eq!(
            lines(|t| t.replace("10.0.0.1:6379", "10.0.0.2:6379")),
            ["services changed: cache"]
        );
        assert_eq!(
            lines(|t| t.replace("\"search\"", "\"find\"")),
            ["services added: find", "services removed: search"]
        );
        assert_eq!(
            lines(|t| format!("drain_timeout = \"5s\"\nworkers = 3\n{t}")),
            [
                "settings changed: drain_timeout",
                "only a restart changes: workers"
            ]
        );
        assert_eq!(
            lines(|t| t.replace("\"gra\"", "\"rbx\"")),
            ["only a restart changes: region"]
        );
    }
}

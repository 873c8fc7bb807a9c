//! What Alertmanager sends: the webhook's JSON, version 4
//! (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).

use std::collections::BTreeMap;

use serde::Deserialize;

/// A group of alerts. Of its many fields only those that count are read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Group {
    /// `"4"`.
    pub version: String,
    pub alerts: Vec<Alert>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Alert {
    pub status: Status,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Firing,
    Resolved,
}

/// # Errors
/// When it is not a group of alerts of version 4, in words for whoever sent it.
pub fn parse(body: &[u8]) -> Result<Group, String> {
    let group: Group =
        serde_json::from_slice(body).map_err(|e| format!("not what Alertmanager sends: {e}"))?;
    match group.version.as_str() {
        "4" => Ok(group),
        _ => Err("the payload's version is not \"4\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_and_nothing_else() {
        let text = r#"{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"firing",
            "receiver":"pilotfish","groupLabels":{"alertname":"RegionDown"},"commonLabels":{},
            "commonAnnotations":{},"externalURL":"http://am:9093","alerts":[{"status":"firing",
            "labels":{"alertname":"RegionDown","region":"gra"},"annotations":{},
            "startsAt":"2026-01-02T03:04:05Z","endsAt":"0001-01-01T00:00:00Z",
            "generatorURL":"http://prom/graph","fingerprint":"abc"},
            {"status":"resolved","labels":{}}]}"#;
        let group = parse(text.as_bytes()).unwrap();
        assert_eq!(group.alerts[0].labels["region"], "gra");
        assert_eq!(group.alerts[1].status, Status::Resolved);
        let deep = "[".repeat(100_000);
        let old = text.replace("\"version\":\"4\"", "\"version\":\"3\"");
        let odd = text.replace("\"resolved\"", "\"maybe\"");
        for bad in [
            "",
            "{}",
            "[]",
            "{\"version\":4,\"alerts\":[]}",
            &deep,
            &old,
            &odd,
        ] {
            assert!(parse(bad.as_bytes()).is_err());
        }
    }
}

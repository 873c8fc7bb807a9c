use super::*;
use crate::clock::Moment;
use crate::topology::reduce::Conclusion;

fn addr(n: u32) -> Addr {
    format!("10.0.{}.{}:6379", n / 256, n % 256)
        .parse()
        .unwrap()
}

fn node(n: u32, up: bool, lag_bytes: Option<u64>) -> NodeReport {
    NodeReport {
        address: addr(n),
        role: "replica",
        up,
        lag_bytes,
        lag_seconds: None,
        detail: None,
    }
}

fn source(n: u32, up: bool) -> SourceReport {
    SourceReport {
        address: addr(n),
        up,
        says: String::new(),
    }
}

fn verdict(primary: Option<u32>, nodes: Vec<NodeReport>, sources: Vec<SourceReport>) -> Verdict {
    Verdict {
        conclusion: Conclusion {
            leaving: None,
            primary: primary.map(addr),
            term: None,
            cause: Cause::Announced,
            replicas: vec![],
        },
        fence: false,
        evidence_at: Moment::default(),
        troubles: vec![],
        nodes,
        sources,
        probes: BTreeMap::new(),
        ask_again: 0,
        recheck: None,
        notes: vec![],
    }
}

/// Lines of the text form that are about `what`, without their common part.
fn shown(registry: &Registry, what: &str) -> Vec<String> {
    let text = registry.render(&metrics_process::Collector::default());
    let prefix = format!("pilotfish_{what}{{service=\"cache\"");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let mut lines: Vec<String> = lines
        .map(|line| {
            line.trim_start_matches(",endpoint=")
                .replace(['"', '}'], "")
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn what_a_verdict_names_is_shown_and_what_it_no_longer_names_goes() {
    let registry = Registry::new();
    let mut metrics = MonitorMetrics::new(&registry, "cache");
    metrics.show(&verdict(None, vec![], vec![]));
    for none in ["primary_info", "endpoint_up", "sentinels_connected"] {
        assert!(shown(&registry, none).is_empty(), "{none}");
    }
    let nodes = vec![node(1, true, None), node(2, true, Some(5))];
    let sources = vec![source(8, true), source(9, false)];
    metrics.show(&verdict(Some(1), nodes, sources));
    assert_eq!(shown(&registry, "primary_info"), ["10.0.0.1:6379 1"]);
    assert_eq!(
        shown(&registry, "endpoint_up"),
        ["10.0.0.1:6379 1", "10.0.0.2:6379 1"]
    );
    assert_eq!(shown(&registry, "endpoint_lag_bytes"), ["10.0.0.2:6379 5"]);
    assert_eq!(shown(&registry, "sentinels_connected"), [" 1"]);

    metrics.show(&verdict(Some(2), vec![node(2, false, None)], vec![]));
    assert_eq!(
        shown(&registry, "primary_info"),
        ["10.0.0.1:6379 0", "10.0.0.2:6379 1"]
    );
    assert_eq!(
        shown(&registry, "endpoint_up"),
        ["10.0.0.1:6379 0", "10.0.0.2:6379 0"]
    );
    assert_eq!(
        shown(&registry, "endpoint_lag_bytes"),
        ["10.0.0.2:6379 NaN"]
    );
    assert_eq!(shown(&registry, "sentinels_connected"), [" 0"]);

    metrics.show(&verdict(Some(2), vec![node(2, true, Some(0))], vec![]));
    assert_eq!(shown(&registry, "endpoint_lag_bytes"), ["10.0.0.2:6379 0"]);
    drop(metrics);
    assert_eq!(
        shown(&registry, "primary_info"),
        ["10.0.0.1:6379 0", "10.0.0.2:6379 0"]
    );
    assert_eq!(
        shown(&registry, "endpoint_up"),
        ["10.0.0.1:6379 0", "10.0.0.2:6379 0"]
    );
}

#[test]
fn switches_are_counted_from_nothing() {
    let registry = Registry::new();
    let metrics = MonitorMetrics::new(&registry, "cache");
    let of = |cause: &str| {
        let lines = shown(&registry, "switches_total");
        lines.into_iter().find(|line| line.contains(cause))
    };
    assert_eq!(of("announced").unwrap(), ",cause=announced 0");
    metrics.switched(Cause::Announced.as_str());
    metrics.published(Generation(4));
    assert_eq!(of("announced").unwrap(), ",cause=announced 1");
    assert_eq!(shown(&registry, "generation"), [" 4"]);
}

#[test]
fn endpoints_without_end_share_a_label() {
    let registry = Registry::new();
    let mut metrics = MonitorMetrics::new(&registry, "cache");
    for n in 0..1000 {
        metrics.show(&verdict(
            Some(n),
            vec![node(n, true, Some(n.into()))],
            vec![],
        ));
    }
    let both = vec![node(998, false, Some(7)), node(999, true, None)];
    metrics.show(&verdict(Some(999), both, vec![]));
    for name in ["primary_info", "endpoint_up", "endpoint_lag_bytes"] {
        assert_eq!(shown(&registry, name).len(), MAX_ENDPOINTS + 1, "{name}");
    }
    let other = |name| shown(&registry, name).pop().unwrap();
    assert_eq!(other("primary_info"), "other 1");
    assert_eq!(other("endpoint_up"), "other 1");
    assert_eq!(other("endpoint_lag_bytes"), "other 7");
}

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::dns::spec::{DnsSpec, Patience, ProviderSpec, TokenSpec, VerifySpec};
use crate::dns::{CompareAndSet, PublishStep, TtlRule, Undo};
use crate::secret::Secret;

pub const RULES: Capabilities = Capabilities {
    compare_and_set: CompareAndSet::Server,
    compares_ttl: true,
    atomic: true,
    publish: PublishStep::None,
    signal: PropagationSignal::None,
    ttl: TtlRule::ANY,
    proxied_mode: false,
    undo: Undo::Inverse,
};

/// Two regions; `rbx` may lack IPv6.
pub fn spec(v6: bool) -> CutoverSpec {
    let zone: crate::dns::Name = "example.com".parse().unwrap();
    let region = |name: &str, n: u8, v6: bool| {
        let mut values = BTreeMap::new();
        let mut add = |rtype, value: String| {
            let parsed = crate::dns::record::Values::parse(rtype, [value.as_str()]).unwrap();
            values.insert(rtype, parsed);
        };
        add(crate::dns::RecordType::A, format!("192.0.2.{n}"));
        if v6 {
            add(crate::dns::RecordType::Aaaa, format!("2001:db8::{n}"));
        }
        crate::cutover::spec::RegionSpec {
            name: name.to_owned(),
            values,
            check: None,
            admin: Vec::new(),
            networks: Vec::new(),
        }
    };
    CutoverSpec {
        state_dir: "/nonexistent".into(),
        records: vec![
            "shop.example.com A".parse().unwrap(),
            "shop.example.com AAAA".parse().unwrap(),
        ],
        ttl: 60,
        ttl_ceiling: 300,
        cooldown: Duration::from_secs(1800),
        soak: Duration::from_secs(3600),
        expiry: Duration::from_secs(600),
        target_lag: Duration::from_secs(10),
        target_lag_bytes: 1 << 20,
        regions: vec![region("gra", 10, true), region("rbx", 20, v6)],
        dns: DnsSpec {
            zone: zone.clone(),
            provider: ProviderSpec::Linode(TokenSpec {
                endpoint: crate::dns::spec::Endpoint::default(),
                token: Secret::new("hidden".to_owned()),
            }),
            patience: Patience::default(),
        },
        verify: VerifySpec::new(zone, Vec::new()),
        deployed_within: Duration::from_secs(600),
        served_within: Duration::from_secs(600),
        gates: Vec::new(),
        hooks: Vec::new(),
        fence: crate::cutover::spec::FenceSpec::default(),
        promote: Vec::new(),
        lock: None,
        notify: None,
        auto: None,
    }
}

pub fn observed(sets: &[(&str, u32, &[&str])]) -> Observed {
    let set = |(key, ttl, values): &(&str, u32, &[&str])| {
        let key = format!("shop.example.com {key}").parse().unwrap();
        RrSet::parse(&key, (*ttl).into(), values.iter().copied()).unwrap()
    };
    Observed {
        records: records(sets.iter().map(set)),
        ..Observed::default()
    }
}

fn home(ttl: u32) -> Observed {
    observed(&[
        ("A", ttl, &["192.0.2.10"]),
        ("AAAA", ttl, &["2001:db8::10"]),
    ])
}

fn made(spec: &CutoverSpec, observed: &Observed, to: &str) -> Result<Plan, PlanError> {
    plan(&Given {
        spec,
        way: Way::Cutover,
        to,
        observed,
        capabilities: RULES,
        epoch: 42,
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
    })
}

#[test]
fn a_plan_says_what_shall_be_and_there_is_a_way_back() {
    let spec = spec(false);
    let plan = made(&spec, &home(300), "rbx").unwrap();
    assert_eq!(
        (plan.from.as_deref(), plan.stragglers_s),
        (Some("gra"), 300)
    );
    // The family that the target lacks goes in the same change.
    assert_eq!(plan.sets[1].new, None);
    let back = plan.back().unwrap();
    assert_eq!(back.to(), home(300).records);
    assert!(!plan.is_idle());
    assert!(
        made(&spec, &observed(&[("A", 60, &["192.0.2.20"])]), "rbx")
            .unwrap()
            .is_idle()
    );
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    assert_eq!(
        json,
        serde_json::to_string(&made(&spec, &home(300), "rbx").unwrap()).unwrap()
    );
    assert!(!json.contains("hidden"));
    let at = |time: &str| time.parse::<Timestamp>().unwrap();
    assert!(!plan.expired(at("2026-01-01T00:09:59Z")) && plan.expired(at("2026-01-01T00:10:00Z")));
    assert!(matches!(
        made(&spec, &home(1), "waw"),
        Err(PlanError::NoRegion(..))
    ));
    // Without records now there would be none afterwards either, on the way back.
    let nothing = Observed::default();
    assert!(matches!(
        made(&spec, &nothing, "rbx"),
        Err(PlanError::NoWayBack(_))
    ));
}

#[test]
fn where_the_records_lead() {
    let spec = spec(true);
    assert_eq!(standing(&spec, &home(5)), Standing::On("gra".into()));
    for bad in [
        observed(&[("A", 60, &["192.0.2.20"]), ("AAAA", 60, &["2001:db8::10"])]),
        observed(&[
            ("A", 60, &["192.0.2.10", "192.0.2.20"]),
            ("AAAA", 60, &["2001:db8::10"]),
        ]),
        observed(&[("A", 60, &["192.0.2.10"])]),
        observed(&[("CNAME", 60, &["lb.example.net"])]),
        Observed::default(),
    ] {
        assert!(
            matches!(standing(&spec, &bad), Standing::Mixed(_)),
            "{bad:?}"
        );
    }
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let v4 = prop::collection::btree_set(1u8..=4, 0..3);
    let v6 = prop::collection::btree_set(1u8..=4, 0..3);
    (v4, v6, 0u32..3, any::<bool>()).prop_map(|(v4, v6, ttl, proxied)| {
        let v4: Vec<String> = v4.iter().map(|n| format!("192.0.2.{n}0")).collect();
        let v6: Vec<String> = v6.iter().map(|n| format!("2001:db8::{n}0")).collect();
        let (v4, v6): (Vec<&str>, Vec<&str>) = (
            v4.iter().map(String::as_str).collect(),
            v6.iter().map(String::as_str).collect(),
        );
        let mut sets: Vec<(&str, u32, &[&str])> = Vec::new();
        if !v4.is_empty() {
            sets.push(("A", ttl, &v4));
        }
        if !v6.is_empty() {
            sets.push(("AAAA", ttl, &v6));
        }
        let mut observed = observed(&sets);
        if proxied {
            observed
                .proxied
                .insert("shop.example.com A".parse().unwrap());
        }
        observed
    })
}

proptest! {
    #[test]
    fn never_empty_and_back_again(seen in any_observed(), v6: bool) {
        let spec = spec(v6);
        if let Ok(plan) = made(&spec, &seen, "rbx") {
            let change = plan.change().unwrap();
            prop_assert!(!change.to().is_empty());
            prop_assert_eq!(plan.back().unwrap().to(), seen.records.clone());
            let twice = Plan { sets: plan.inverse_sets(), ..plan.clone() }.inverse_sets();
            let bare = |sets: &[PlannedSet]| -> Vec<_> {
                sets.iter().map(|s| (s.record.clone(), s.old.clone(), s.new.clone())).collect()
            };
            prop_assert_eq!(bare(&twice), bare(&plan.sets));
        } else {
            prop_assert!(seen.records.is_empty());
        }
    }

    #[test]
    fn the_digest_changes_with_everything_that_is_seen(a in any_observed(), b in any_observed()) {
        let spec = spec(true);
        let same = a.records == b.records && a.proxied == b.proxied;
        prop_assert_eq!(digest(&spec, &a) == digest(&spec, &b), same);
    }
}

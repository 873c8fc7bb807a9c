use super::*;
use crate::cutover::plan::tests::spec;

fn service(name: &str) -> ServiceFact {
    ServiceFact {
        name: name.to_owned(),
        required: true,
        proven: true,
        held: false,
        lag: None,
        lag_bytes: None,
        why: None,
    }
}

fn server(name: &str) -> ServerFact {
    ServerFact {
        name: name.to_owned(),
        inside_old_region: false,
        silent: None,
        ttl: Some(60),
        negative_ttl: Some(60),
    }
}

fn answer(status: u16) -> Result<Answer, String> {
    Ok(Answer {
        status,
        took: Duration::from_millis(7),
        region: None,
        services: Vec::new(),
    })
}

/// Everything is as it should be.
fn good() -> Facts {
    Facts {
        way: Way::Cutover,
        to: "rbx".into(),
        target: Some(vec![answer(200), answer(204)]),
        here: Some(vec![service("shop")]),
        promotes: Vec::new(),
        opens: false,
        fence: FenceFacts {
            proof: Some(Ok(())),
            ..FenceFacts::default()
        },
        standing: Standing::On("gra".into()),
        left_at: None,
        proxied: Vec::new(),
        held_ttl: 60,
        appears: Vec::new(),
        servers: Ok(vec![server("ns1"), server("ns2")]),
        access: Ok(Access::both(Proof::Proven)),
        lock: Ok(None),
        since_last: None,
        empties: Vec::new(),
    }
}

fn said(gate: Name, change: impl FnOnce(&mut Facts)) -> Says {
    let mut facts = good();
    change(&mut facts);
    let verdicts = judge(&spec(true), &facts);
    assert_eq!(verdicts.len(), Name::ALL.len());
    // Nothing but the gate in question minds.
    for verdict in &verdicts {
        assert!(
            verdict.gate == gate.as_str() || verdict.says != Says::Fail,
            "{verdict:?}"
        );
        assert!(!verdict.why.is_empty());
    }
    let mine = verdicts
        .iter()
        .find(|verdict| verdict.gate == gate.as_str());
    mine.unwrap().says
}

#[test]
fn all_pass_when_all_is_well() {
    for gate in Name::ALL {
        assert_eq!(said(gate, |_| ()), Says::Pass, "{}", gate.as_str());
    }
}

#[test]
fn the_target_must_answer() {
    use Name::TargetCheck as Gate;
    assert_eq!(said(Gate, |f| f.target = None), Says::Warn);
    assert_eq!(said(Gate, |f| f.target = Some(Vec::new())), Says::Fail);
    for bad in [answer(503), answer(301), Err("refused".to_owned())] {
        assert_eq!(
            said(Gate, |f| f.target = Some(vec![answer(200), bad])),
            Says::Fail
        );
    }
    let other = |f: &mut Facts| {
        let mut it = answer(200).unwrap();
        it.region = Some("gra".into());
        f.target = Some(vec![Ok(it)]);
    };
    assert_eq!(said(Gate, other), Says::Fail);
}

#[test]
fn its_databases_must_be_proven_or_near() {
    use Name::TargetData as Gate;
    assert_eq!(said(Gate, |f| f.here = None), Says::Fail);
    let told = |f: &mut Facts| {
        f.here = None;
        let mut it = answer(200).unwrap();
        it.services = vec![service("shop")];
        f.target = Some(vec![Ok(it)]);
    };
    assert_eq!(said(Gate, told), Says::Pass);
    let lost = |f: &mut Facts| f.here.as_mut().unwrap()[0].proven = false;
    assert_eq!(said(Gate, lost), Says::Fail);
    assert_eq!(
        said(Gate, |f| {
            lost(f);
            f.here.as_mut().unwrap()[0].required = false;
        }),
        Says::Pass
    );
    // Where the run does not let its clients go, somebody else has to.
    for (opens, says) in [(false, Says::Fail), (true, Says::Pass)] {
        let found = said(Gate, |f| {
            f.here.as_mut().unwrap()[0].held = true;
            f.opens = opens;
        });
        assert_eq!(found, says);
    }
    for (lag, bytes, says) in [
        (None, None, Says::Fail),
        (Some(10), None, Says::Pass),
        (Some(11), None, Says::Fail),
        (None, Some(1 << 20), Says::Pass),
        (None, Some((1 << 20) + 1), Says::Fail),
        (Some(0), Some(u64::MAX), Says::Fail),
    ] {
        for proven in [false, true] {
            let found = said(Gate, |f| {
                f.promotes = vec!["shop".into()];
                let shop = &mut f.here.as_mut().unwrap()[0];
                shop.proven = proven;
                shop.lag = lag.map(Duration::from_secs);
                shop.lag_bytes = bytes;
            });
            let unknown = proven && lag.is_none() && bytes.is_none();
            assert_eq!(
                found,
                if unknown { Says::Pass } else { says },
                "{lag:?} {bytes:?}"
            );
        }
    }
}

#[test]
fn the_old_region_must_be_proven_silent() {
    use Name::OldRegionFenced as Gate;
    let sidecar = |open: Result<Vec<String>, String>| SidecarFact {
        address: "gra-1".into(),
        open,
    };
    let of = |fence: FenceFacts| said(Gate, |f| f.fence = fence);
    let plain = FenceFacts::default;
    let with = |sidecars: Vec<SidecarFact>| FenceFacts {
        sidecars,
        ..plain()
    };
    assert_eq!(of(plain()), Says::Fail);
    assert_eq!(
        of(FenceFacts {
            ahead: true,
            ..plain()
        }),
        Says::Pass
    );
    assert_eq!(
        of(FenceFacts {
            proof: Some(Err("no".into())),
            ..plain()
        }),
        Says::Fail
    );
    assert_eq!(of(with(vec![sidecar(Ok(Vec::new()))])), Says::Pass);
    for open in [Ok(vec!["shop".to_owned()]), Err("gone".to_owned())] {
        assert_eq!(
            of(with(vec![sidecar(Ok(Vec::new())), sidecar(open)])),
            Says::Fail
        );
    }
    // That we cannot reach it says nothing by itself.
    let dead = |cannot, of_all, answers| FenceFacts {
        answers,
        witnesses: (cannot, of_all),
        ..plain()
    };
    let no = || Some(Err("timeout".to_owned()));
    for (cannot, all, answers, says) in [
        (0, 0, no(), Says::Fail),
        (1, 1, no(), Says::Pass),
        (1, 2, no(), Says::Fail),
        (2, 3, no(), Says::Pass),
        (3, 3, Some(Ok(())), Says::Fail),
        (3, 3, None, Says::Fail),
    ] {
        assert_eq!(of(dead(cannot, all, answers)), says, "{cannot} of {all}");
    }
}

#[test]
fn the_records_and_those_who_serve_them() {
    let mixed = Standing::Mixed(vec!["shop A is 1.2.3.4".into()]);
    assert_eq!(
        said(Name::RecordsExpected, |f| f.standing = mixed),
        Says::Fail
    );
    let elsewhere = |f: &mut Facts| f.left_at = Some("waw".into());
    assert_eq!(said(Name::RecordsExpected, elsewhere), Says::Warn);

    for (held, served, says) in [
        (301, 1, Says::Fail),
        (1, 301, Says::Fail),
        (300, 300, Says::Pass),
    ] {
        let found = said(Name::TtlCeiling, |f| {
            f.held_ttl = held;
            f.servers.as_mut().unwrap()[1].ttl = Some(served);
        });
        assert_eq!(found, says);
    }
    let key: Key = "shop.example.com AAAA".parse().unwrap();
    let proxied = key.clone();
    assert_eq!(
        said(Name::TtlCeiling, |f| f.proxied = vec![proxied]),
        Says::Warn
    );

    for (ttl, appears, says) in [
        (301, true, Says::Fail),
        (301, false, Says::Pass),
        (300, true, Says::Pass),
    ] {
        let found = said(Name::NegativeTtl, |f| {
            f.servers.as_mut().unwrap()[0].negative_ttl = Some(ttl);
            f.appears = if appears {
                vec![key.clone()]
            } else {
                Vec::new()
            };
        });
        assert_eq!(found, says);
    }
    let mute = |f: &mut Facts| {
        for server in f.servers.as_mut().unwrap() {
            server.negative_ttl = None;
        }
    };
    assert_eq!(said(Name::NegativeTtl, mute), Says::Warn);

    use Name::NameServers as Gate;
    let silent = |f: &mut Facts| f.servers.as_mut().unwrap()[0].silent = Some("timeout".into());
    assert_eq!(said(Gate, silent), Says::Fail);
    assert_eq!(
        said(Gate, |f| f.servers.as_mut().unwrap()[0].inside_old_region =
            true),
        Says::Warn
    );
    let all = |f: &mut Facts| {
        for server in f.servers.as_mut().unwrap() {
            server.inside_old_region = true;
        }
    };
    assert_eq!(said(Gate, all), Says::Fail);
}

#[test]
fn rights_locks_and_time() {
    let denied = |f: &mut Facts| f.access = Err("denied".into());
    assert_eq!(said(Name::Credentials, denied), Says::Fail);
    let likely = |f: &mut Facts| f.access = Ok(Access::both(Proof::Likely("a role".into())));
    assert_eq!(said(Name::Credentials, likely), Says::Pass);
    assert_eq!(
        said(Name::Lock, |f| f.lock = Ok(Some("app-02".into()))),
        Says::Fail
    );
    assert_eq!(
        said(Name::Lock, |f| f.lock = Err("no answer".into())),
        Says::Fail
    );
    for (way, seconds, says) in [
        (Way::Cutover, 1799, Says::Fail),
        (Way::Cutover, 1800, Says::Pass),
        (Way::Failback, 1800, Says::Fail),
        (Way::Failback, 3600, Says::Pass),
    ] {
        let found = said(Name::Cooldown, |f| {
            f.way = way;
            f.since_last = Some(Duration::from_secs(seconds));
        });
        assert_eq!(found, says, "{way:?} {seconds}");
    }
    let empty = |f: &mut Facts| f.empties = vec!["shop".into()];
    assert_eq!(said(Name::OneRegionOn, empty), Says::Fail);
}

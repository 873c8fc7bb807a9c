//! Whole cutovers through other providers than BIND, and a resolver that keeps the old records too long.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

use pilotfish::dns::ProviderSpec;
use pilotfish::dns::spec::{Endpoint, Route53Spec};
use pilotfish::secret::Secret;
use pilotfish_harness::dns::bind::{Bind, Options};
use pilotfish_harness::dns::faults::{Fault, On, forward_http};
use pilotfish_harness::dns::http::{HttpServer, Response};
use pilotfish_harness::dns::knot::Knot;
use pilotfish_harness::dns::moto::{Moto, demand_signatures};
use pilotfish_harness::dns::powerdns::PowerDns;
use pilotfish_harness::dns::query::{self, Type};
use pilotfish_harness::dns::{KEY, NAME, ZONE};
use pilotfish_harness::ports;
use pilotfish_harness::sidecar::Sidecar;

use crate::stage::{Editor, LONG, NEW, OLD, Primary, Site, both, command, region, verdict};

const LINES: [&str; 2] = ["shop 2 A 192.0.2.10", "shop 2 AAAA 2001:db8::10"];
const API_KEY: &str = "api-key-that-nobody-may-see";
const MOVE: [&str; 4] = ["cutover", "--to", "rbx", "--yes"];
const THEIRS: [&str; 2] = ["192.0.2.99", "2001:db8::99"];

fn knot() -> Site<Knot> {
    let second = ports::free().unwrap();
    let primary = Knot::primary(&LINES, Some(second)).unwrap();
    Site::around(primary, second, false, 0)
}

fn powerdns() -> Site<PowerDns> {
    let primary = PowerDns::start(API_KEY, &LINES).unwrap();
    let site = Site::around(primary, ports::free().unwrap(), false, 0);
    std::fs::write(site.dir.join("api.key"), API_KEY).unwrap();
    site
}

fn api(site: &Site<PowerDns>) -> String {
    site.section_for(&format!(
        "kind = \"powerdns\"\nendpoint = \"http://{}\"\napi_key_file = \"{}\"",
        site.primary.api,
        site.dir.join("api.key").display()
    ))
}

/// There and back again. The history of both.
fn there_and_back<P: Primary>(site: &Site<P>, section: &str, secret: &str) -> serde_json::Value {
    let sidecar = site.sidecar(section);
    let serial = site.serial();
    let preview = region(&sidecar, &["plan", "--to", "rbx", "--json"]).json();
    assert_eq!(preview["stopped_by"], serde_json::json!([]), "{preview:#}");
    assert_eq!(site.serial(), serial, "a plan changes nothing");

    let moved = region(&sidecar, &MOVE);
    assert_eq!(moved.code, 0, "{moved:?}");
    everywhere(site, NEW);
    let status = region(&sidecar, &["status", "--json"]).json();
    assert_eq!(status["active"], "rbx", "{status:#}");

    let back = ["failback", "--yes", "--override", "target-data"];
    let back = region(&sidecar, &[&back[..], &["--reason", "a drill"]].concat());
    assert_eq!(back.code, 0, "{back:?}");
    everywhere(site, OLD);
    let history = region(&sidecar, &["history", "--json"]).json();
    for (at, way) in ["cutover", "failback"].into_iter().enumerate() {
        let run = &history[at];
        assert_eq!(
            (&run["way"], &run["outcome"]),
            (&way.into(), &"done".into()),
            "{history:#}"
        );
        assert!(!run["notes"].to_string().contains("still has"), "{run:#}");
    }
    let journal = std::fs::read_to_string(site.journal()).unwrap();
    for text in [journal, sidecar.server().log().unwrap()] {
        assert!(!text.contains(secret), "{text}");
    }
    history
}

/// Both families, at both name servers.
fn everywhere<P: Primary>(site: &Site<P>, values: [&str; 2]) {
    let wanted = values.map(|value| vec![value.to_owned()]);
    for server in [site.primary.addr(), site.secondary.addr] {
        assert_eq!(site.served(server), wanted, "{server}");
    }
}

/// The gate says so, and nothing is changed.
fn may_not<P: Primary>(site: &Site<P>, section: &str, zone: &str) {
    let sidecar = site.sidecar(section);
    let serial = query::serial(site.primary.addr(), zone).unwrap();
    let preview = region(&sidecar, &["plan", "--to", "rbx", "--json"]).json();
    let (says, why) = verdict(&preview, "credentials");
    assert_eq!(says, "fail", "{preview:#}");
    assert!(why.contains("rfc2136"), "{why}");
    let said = region(&sidecar, &MOVE);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("credentials"), "{said:?}");
    let now = query::serial(site.primary.addr(), zone).unwrap();
    assert_eq!(now, serial);
}

/// With these nothing can even be read: there is nothing to plan with.
fn cannot_begin<P: Primary>(site: &Site<P>, section: &str, why: &str) {
    let sidecar = site.sidecar(section);
    let serial = site.serial();
    let said = region(&sidecar, &MOVE);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(why), "{said:?}");
    assert!(!said.err.contains(KEY) && !said.err.contains(API_KEY));
    assert_eq!(site.serial(), serial);
}

/// Somebody edits in the moment in which the update arrives.
fn edited_at_the_update<P: Primary>(site: &Site<P>) {
    let sidecar = site.sidecar(&site.section());
    let before = site.faults.writes();
    assert_eq!(region(&sidecar, &["plan", "--to", "rbx"]).code, 0);
    let writes = site.faults.writes() - before;
    // The command line plans before it asks for the run, which does the same.
    for _ in 0..2 * writes {
        site.faults.add(On::Write, Fault::Nothing);
    }
    let editor = site.editor();
    let edit = Fault::Meanwhile(Box::new(move || editor.set(&both(THEIRS, 2))));
    site.faults.add(On::Write, edit);
    let said = region(&sidecar, &MOVE);
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(site.faults.clear(), 0, "nobody edited");
    theirs_stay(site, &sidecar);
}

/// Somebody edits after the gates have passed.
fn edited_before_the_change<P: Primary>(site: &Site<P>, section: &str, editor: &Editor) {
    let go = site.dir.join("go");
    let hook = format!(
        "[[cutover.hook]]\nwhen = \"before-apply\"\ncommand = [\"sh\", \"-c\", \"while ! test -e {}; do sleep 0.05; done\"]\n",
        go.display()
    );
    let sidecar = site.sidecar(&(section.to_owned() + &hook));
    let mut moving = command(&sidecar, &MOVE);
    let moving = moving.stdout(Stdio::piped()).spawn().unwrap();
    sidecar.wait_log("gates: ", LONG).unwrap();
    editor.set(&both(THEIRS, 2));
    std::fs::write(&go, "").unwrap();
    let ended = moving.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("records-expected"), "{said}");
    theirs_stay(site, &sidecar);
}

fn theirs_stay<P: Primary>(site: &Site<P>, sidecar: &Sidecar) {
    let served = site.served(site.primary.addr());
    assert_eq!(served, THEIRS.map(|value| vec![value.to_owned()]));
    let preview = region(sidecar, &["plan", "--to", "rbx", "--json"]).json();
    let (says, why) = verdict(&preview, "records-expected");
    assert_eq!(says, "fail", "{why}");
}

#[test]
fn knot_by_update() {
    let site = knot();
    there_and_back(&site, &site.section(), KEY);
    edited_at_the_update(&site);
}

#[test]
fn knot_refuses_keys_and_zones() {
    let site = knot();
    let key = |name: &str| {
        let wanted = format!("key_name = \"{name}\"");
        site.section().replace("key_name = \"cutover\"", &wanted)
    };
    may_not(&site, &key("viewer"), ZONE);
    cannot_begin(&site, &key("nobody"), "bad credentials");
    // It has this zone, and no rule in it for anybody.
    cannot_begin(&site, &elsewhere(&site.section()), "bad credentials");
}

#[test]
fn a_zone_that_takes_no_updates() {
    let site = Site::start();
    may_not(&site, &elsewhere(&site.section()), "example.org");
}

/// The only record of the other zone, for the same key.
fn elsewhere(section: &str) -> String {
    section
        .replace(
            &format!("[\"{NAME} A\", \"{NAME} AAAA\"]"),
            "[\"shop.example.org A\"]",
        )
        .replace("zone = \"example.com\"", "zone = \"example.org\"")
        .replace(&format!("A = [\"{}\"]", OLD[0]), "A = [\"192.0.2.1\"]")
        .replace(&format!("AAAA = [\"{}\"]\n", OLD[1]), "")
        .replace(&format!("AAAA = [\"{}\"]\n", NEW[1]), "")
}

#[test]
fn powerdns_by_update() {
    let site = powerdns();
    there_and_back(&site, &site.section(), KEY);
    edited_at_the_update(&site);
    drop(site);

    let site = powerdns();
    let key = |name: &str| {
        let wanted = format!("key_name = \"{name}\"");
        site.section().replace("key_name = \"cutover\"", &wanted)
    };
    may_not(&site, &key("viewer"), ZONE);
    cannot_begin(&site, &key("nobody"), "bad credentials");
}

#[test]
fn powerdns_by_its_api() {
    let site = powerdns();
    let section = api(&site);
    there_and_back(&site, &section, API_KEY);
    edited_before_the_change(&site, &section, &site.editor());

    std::fs::write(site.dir.join("api.key"), "somebody-elses-key").unwrap();
    cannot_begin(&site, &section, "bad credentials");
    std::fs::write(site.dir.join("api.key"), API_KEY).unwrap();
    // A zone that it does not have.
    cannot_begin(&site, &elsewhere(&section), "no such zone");
}

/// Moto, and name servers that serve what it has.
struct Amazon {
    site: Site,
    moto: Moto,
    api: HttpServer,
}

impl Amazon {
    fn start() -> Self {
        let moto = Moto::start().unwrap();
        // Another TTL than they have after a failback: moto refuses what has ever been created.
        let site = Site::with(
            &LINES
                .map(|line| line.replace(" 2 ", " 3 "))
                .each_ref()
                .map(String::as_str),
            false,
        );
        let known = at_moto(moto.addr, &moto);
        known.set(&both(OLD, 3));
        let (server, name_servers) = (moto.addr, site.editor());
        // One request at a time: a signature is demanded of changes, as moto knows no signed GET.
        let turn = Mutex::new(());
        let api = HttpServer::start(move |request| {
            let _turn = turn.lock().unwrap();
            demand_signatures(server, request.writes()).unwrap();
            let answer = forward_http(server, request).unwrap();
            demand_signatures(server, false).unwrap();
            if request.writes() && answer.starts_with(b"HTTP/1.1 200") {
                name_servers.set(&known.get());
            }
            Response::Raw(answer)
        });
        let api = api.unwrap();
        Self { site, moto, api }
    }

    fn section(&self) -> String {
        let file = self.site.dir.join("aws.key");
        std::fs::write(&file, &self.moto.secret_access_key).unwrap();
        self.section_with(&file)
    }

    fn section_with(&self, secret: &Path) -> String {
        self.site.section_for(&format!(
            "kind = \"route53\"\nendpoint = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key_file = \"{}\"",
            self.api.url(),
            self.moto.access_key_id,
            secret.display()
        ))
    }
}

fn at_moto(at: SocketAddr, moto: &Moto) -> Editor {
    Editor::new(ProviderSpec::Route53(Route53Spec {
        endpoint: Endpoint {
            url: Some(format!("http://{at}")),
            ..Endpoint::default()
        },
        zone_id: None,
        access_key_id: moto.access_key_id.clone(),
        secret_access_key: Secret::new(moto.secret_access_key.clone()),
        session_token: None,
    }))
}

#[test]
fn route_53() {
    let amazon = Amazon::start();
    let section = amazon.section();
    let secret = &amazon.moto.secret_access_key;
    let history = there_and_back(&amazon.site, &section, secret);
    // It says when a change is deployed.
    assert!(history[0]["finish"]["deployed"].is_string(), "{history:#}");

    // What may read and not write.
    let file = amazon.site.dir.join("other.key");
    std::fs::write(&file, "another-secret-of-the-account").unwrap();
    let sidecar = amazon.site.sidecar(&amazon.section_with(&file));
    let preview = region(&sidecar, &["plan", "--to", "rbx", "--json"]).json();
    let (says, why) = verdict(&preview, "credentials");
    assert_eq!(says, "fail", "{why}");
    let said = region(&sidecar, &MOVE);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("credentials"), "{said:?}");
    drop(sidecar);
    everywhere(&amazon.site, OLD);

    cannot_begin(&amazon.site, &elsewhere(&section), "no such zone");
    let editor = at_moto(amazon.api.addr, &amazon.moto);
    edited_before_the_change(&amazon.site, &section, &editor);
}

#[test]
fn a_resolver_that_keeps_the_old_records_is_named() {
    let second = ports::free().unwrap();
    let options = Options {
        records: LINES.map(str::to_owned).to_vec(),
        notify: vec![second],
        ..Options::default()
    };
    let primary = Bind::primary(&options).unwrap();
    let site = Site::around(primary, second, false, 300);
    let sidecar = site.sidecar(&site.section());
    let resolver = site.unbound.addr;
    // Somebody's clients have asked before.
    for (rtype, value) in [(Type::A, OLD[0]), (Type::Aaaa, OLD[1])] {
        let reply = query::ask(resolver, NAME, rtype, true).unwrap();
        assert_eq!(reply.records[0].1, value);
    }
    let said = region(&sidecar, &MOVE);
    assert_eq!(said.code, 0, "{said:?}");
    // While it waits: who, what, and for how long.
    assert!(
        said.out
            .contains("resolvers, until the old TTL has passed in"),
        "{said:?}"
    );
    let still = |rtype: &str, value: &str| format!("{resolver} still has {NAME} {rtype} {value}");
    assert!(said.out.contains(&still("A", OLD[0])), "{said:?}");
    everywhere(&site, NEW);

    // The promise is kept when the TTL that the records had is over, whatever a resolver does.
    let history = region(&sidecar, &["history", "--json"]).json();
    let run = &history[0];
    assert_eq!(run["outcome"], "done", "{run:#}");
    for still in [still("A", OLD[0]), still("AAAA", OLD[1])] {
        let notes = run["notes"].as_array().unwrap().iter();
        let mut notes = notes.filter_map(serde_json::Value::as_str);
        let note = notes.find(|note| note.starts_with(&still));
        let note = note.unwrap_or_else(|| panic!("{run:#}"));
        assert!(said.out.contains(note), "{said:?}");
        let left = note.strip_prefix(&(still + ", and keeps it for "));
        let left = left.and_then(|left| left.strip_suffix(" s more"));
        // Far more than the TTL of 2 s that has passed.
        let left: u32 = left.unwrap().parse().unwrap();
        assert!((100..=300).contains(&left), "{note}");
    }
    let reply = query::ask(resolver, NAME, Type::A, true).unwrap();
    assert_eq!(reply.records[0].1, OLD[0], "it was true");
}

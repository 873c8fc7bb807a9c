//! A database of the target is made primary on the way: after the fence, before the records change.

use pilotfish_harness::postgres::{Options, Pg, PgCluster};
use pilotfish_harness::redis::{RedisConf, RedisServer, Role};
use pilotfish_harness::sidecar::{Service, Sidecar};
use pilotfish_harness::wait;

use crate::stage::{LONG, NEW, OLD, Site, region, sidecar_of};

/// A master in the old region and its replica in the target, no sentinels.
struct Databases {
    old: RedisServer,
    new: RedisServer,
}

impl Databases {
    fn start() -> Self {
        let old = RedisServer::start(&RedisConf::default()).unwrap();
        let conf = RedisConf {
            replica_of: Some(old.addr),
            ..RedisConf::default()
        };
        let new = RedisServer::start(&conf).unwrap();
        let follows = Role::Replica {
            master: old.addr,
            link_up: true,
        };
        wait::until_true("the replica to follow", LONG, || Ok(new.role()? == follows)).unwrap();
        Self { old, new }
    }

    fn sidecar(&self, section: &str) -> Sidecar {
        let service = Service::new("cache", "redis")
            .unwrap()
            .set("hold_timeout", "60s")
            .discover("kind", "redis")
            .discover_all("nodes", &[self.old.addr, self.new.addr])
            .discover("probe_interval", "500ms");
        let sidecar = sidecar_of(service, section);
        sidecar.wait_primary("cache", self.old.addr, LONG).unwrap();
        sidecar
    }

    fn section(&self, site: &Site) -> String {
        let section = site.section();
        format!(
            "{section}[[cutover.promote]]\nservice = \"cache\"\ntimeout = \"40s\"\nto = {{ rbx = \"{}\" }}\n",
            self.new.addr
        )
    }
}

#[test]
fn a_replica_of_the_target_is_promoted_before_the_records_change() {
    let site = Site::start();
    let databases = Databases::start();
    let old = databases.old.addr.port();
    let fence = format!(
        "command = [\"redis-cli\", \"-p\", \"{old}\", \"shutdown\", \"nosave\"]\n\
         proof = [\"sh\", \"-c\", \"! redis-cli -p {old} ping\"]"
    );
    let section = databases.section(&site);
    let sidecar = databases.sidecar(&section.replace("proof = [\"true\"]", &fence));
    let preview = region(&sidecar, &["plan", "--to", "rbx", "--json"]).json();
    assert_eq!(
        preview["plan"]["course"]["promote"],
        serde_json::json!(["cache"]),
        "{preview:#}"
    );
    assert_eq!(preview["stopped_by"], serde_json::json!([]), "{preview:#}");

    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.contains("promoted the database of cache"),
        "{said:?}"
    );
    assert_eq!(databases.new.role().unwrap(), Role::Master);
    sidecar
        .wait_primary("cache", databases.new.addr, LONG)
        .unwrap();
    let mut client = sidecar.client("cache", LONG).unwrap();
    client.command(&["SET", "moved", "yes"]).unwrap();
    let server = site.primary.addr;
    assert_eq!(site.served(server), NEW.map(|value| vec![value.to_owned()]));

    // In this order, and in the history.
    let journal = std::fs::read_to_string(site.journal()).unwrap();
    let at = |word: &str| journal.find(word).unwrap_or_else(|| panic!("{journal}"));
    let steps = [
        "\"fenced\"",
        "\"proved\"",
        "\"promoting\"",
        "\"promoted\"",
        "\"sending\"",
    ];
    assert!(steps.map(at).is_sorted(), "{journal}");
    let history = region(&sidecar, &["history", "--json"]).json();
    assert_eq!(history[0]["outcome"], "done", "{history:#}");
    let events = sidecar.admin("GET", "/v1/events", "").unwrap().body;
    assert!(
        events.contains("promoted the database of cache"),
        "{events}"
    );
}

#[test]
fn a_master_that_still_answers_ends_it_before_the_records_change() {
    let site = Site::start();
    let databases = Databases::start();
    // The proof lies: the old region goes on.
    let sidecar = databases.sidecar(&databases.section(&site).replace("\"40s\"", "\"3s\""));
    let serial = site.serial();
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("the database of cache was not promoted"),
        "{said:?}"
    );
    assert_eq!(databases.old.role().unwrap(), Role::Master);
    assert!(matches!(
        databases.new.role().unwrap(),
        Role::Replica { .. }
    ));
    assert_eq!(site.serial(), serial);
    let server = site.primary.addr;
    assert_eq!(site.served(server), OLD.map(|value| vec![value.to_owned()]));
}

/// The same with PostgreSQL: the standby becomes a timeline of its own, and has every row.
#[test]
fn a_standby_of_the_target_is_promoted_with_every_row() {
    let site = Site::start();
    let cluster = PgCluster::start(&Options {
        standbys: 1,
        setup: vec!["CREATE TABLE orders (id int)".to_owned()],
        ..Options::default()
    })
    .unwrap();
    let [old, new] = [cluster.node(0), cluster.node(1)];
    old.query("INSERT INTO orders SELECT generate_series(1, 500)")
        .unwrap();
    let (pid, port) = (old.server().pid(), old.addr.port());
    // A fast shutdown, which sends the standby all there is.
    let fence = format!(
        "command = [\"sh\", \"-c\", \"kill -INT {pid}\"]\n\
         proof = [\"sh\", \"-c\", \"pg_isready -h 127.0.0.1 -p {port}; test $? = 2\"]"
    );
    let section = site.section().replace("proof = [\"true\"]", &fence);
    let promote = format!(
        "[[cutover.promote]]\nservice = \"shop\"\ntimeout = \"40s\"\nto = {{ rbx = \"{}\" }}\n",
        new.addr
    );
    let service = Service::postgres("shop", &cluster.addrs())
        .unwrap()
        .set("hold_timeout", "60s")
        .discover("interval", "500ms");
    let sidecar = sidecar_of(service, &format!("{section}{promote}"));
    sidecar.wait_primary("shop", old.addr, LONG).unwrap();
    let timeline = old.timeline().unwrap();

    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.contains("promoted the database of shop"),
        "{said:?}"
    );
    assert!(!new.is_standby().unwrap());
    assert_eq!(new.timeline().unwrap(), timeline + 1);
    sidecar.wait_primary("shop", new.addr, LONG).unwrap();
    let target = sidecar.tcp("shop").unwrap().into();
    let mut client = Pg::connect(&target, LONG).unwrap();
    client.query("INSERT INTO orders VALUES (501)").unwrap();
    assert_eq!(
        new.value("SELECT count(DISTINCT id) FROM orders").unwrap(),
        "501"
    );
    let server = site.primary.addr;
    assert_eq!(site.served(server), NEW.map(|value| vec![value.to_owned()]));
}

//! The status page, in a real browser.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use pilotfish_harness::browser::Browser;
use pilotfish_harness::redis::{Options, RedisCluster};
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until, request};
use pilotfish_harness::wait;
use pilotfish_harness::writer::Mode;

use crate::kit::{self, LONG};
use crate::support::{KEPT, write_to};

fn url(sidecar: &Sidecar) -> String {
    format!("http://{}/", sidecar.config().http)
}

/// A cluster, and a sidecar before it with one service more.
fn stage() -> (RedisCluster, Sidecar) {
    let options = Options {
        down_after: Duration::from_millis(1500),
        ..Options::default()
    };
    let cluster = RedisCluster::start(options).unwrap();
    let cache = kit::patient(Service::sentinel("cache", &cluster).unwrap());
    let search = Service::new("search", "tcp")
        .unwrap()
        .discover("kind", "static")
        .discover_all("nodes", &[cluster.node(1).addr]);
    let config = kit::config(cache).line("region = \"gra\"").service(search);
    let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
    (cluster, sidecar)
}

/// Nothing but what the page has a right to: its own server, and no word in the console.
fn assert_quiet(browser: &Browser, sidecar: &Sidecar) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let own = url(sidecar);
    let requests = browser.requests();
    assert!(requests.iter().any(|asked| asked.contains("/page/updates")));
    for asked in requests {
        let known = asked.starts_with(&own) || asked.starts_with("data:") || asked == "about:blank";
        assert!(known, "it asked {asked}");
    }
}

/// Where pictures for the documentation are wanted: `PAGE_PICTURES` names a directory.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(dir) = std::env::var_os("PAGE_PICTURES") {
        let path = PathBuf::from(dir).join(format!("{name}.png"));
        browser.screenshot(&path, false).unwrap();
    }
}

#[test]
fn it_is_whole_without_scripts() {
    let (cluster, sidecar) = stage();
    let mut browser = Browser::start_without_scripts(1000, 800).unwrap();
    browser.go(&url(&sidecar)).unwrap();
    let mut document = String::new();
    wait::until_true("the document", LONG, || {
        document = browser.document()?;
        Ok(document.contains("</html>") && document.contains("Timeline"))
    })
    .unwrap();
    let master = cluster.node(0).addr;
    for said in [
        "<title>ok · app-01 · Pilotfish</title>".to_owned(),
        format!("Primary <b>{master}</b>"),
        "3 of 3 sentinels answer".to_owned(),
        "id=\"s-cache\"".to_owned(),
        "id=\"s-search\"".to_owned(),
        format!("new primary {master}"),
        "<meta http-equiv=\"refresh\" content=\"5\">".to_owned(),
        "read again every 5 s".to_owned(),
    ] {
        assert!(document.contains(&said), "{said} is not in {document}");
    }
    assert!(!document.contains("class=\"live\""), "nothing has run");
    // It is read anew by itself.
    kit::control(&sidecar, &["pause", "cache"]);
    wait::until_true("the pause to be shown", LONG, || {
        Ok(browser.document()?.contains("clients wait"))
    })
    .unwrap();
    picture(&mut browser, "without-scripts");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// The text of an element, as a reader sees it.
fn text(browser: &mut Browser, of: &str) -> String {
    let text = browser.evaluate(&format!("document.querySelector('{of}').innerText"));
    text.unwrap().as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_failover_shows_on_an_open_page() {
    let (cluster, sidecar) = stage();
    let master = cluster.node(0).addr;
    let clients = sidecar.tcp("cache").unwrap();
    let _kept = write_to("kept", clients, KEPT).unwrap();
    let _php = write_to("php", clients, Mode::PerRequest).unwrap();
    let mut browser = Browser::start(1240, 760).unwrap();
    browser.open(&url(&sidecar)).unwrap();
    browser.wait_for("pulse.className === 'live'").unwrap();
    assert!(text(&mut browser, "#s-cache .now").contains(&master.to_string()));
    assert!(text(&mut browser, "#top h1").contains("app-01 in gra ok"));
    // What a reader has done to the page must survive.
    browser
        .evaluate("window.sameDocument = true; document.getElementById('d-cache').open = true; document.getElementById('f-cache').focus()")
        .unwrap();
    picture(&mut browser, "calm");

    cluster.node(0).server().kill().unwrap();
    // What passes is not waited for, but for what it leaves behind: a busy browser may miss the moment.
    browser
        .wait_for("events.innerText.includes('no primary: unproven, clients are held')")
        .unwrap();
    if std::env::var_os("PAGE_PICTURES").is_some() {
        browser
            .wait_for("document.querySelector('#s-cache .picture .held') !== null")
            .unwrap();
        for scheme in ["dark", "light"] {
            browser.colour_scheme(scheme).unwrap();
            picture(&mut browser, &format!("failover-{scheme}"));
        }
    }
    let new = cluster.wait_new_master(0, LONG).unwrap();
    let new = cluster.node(new).addr;
    sidecar.wait_primary("cache", new, LONG).unwrap();
    let shown =
        format!("document.querySelector('#s-cache .now').innerText.startsWith('Primary {new}')");
    browser.wait_for(&shown).unwrap();
    let event =
        format!("events.firstElementChild && events.innerText.includes('new primary {new}')");
    browser.wait_for(&event).unwrap();
    let kept = "window.sameDocument && document.getElementById('d-cache').open \
        && document.activeElement.id === 'f-cache'";
    assert_eq!(browser.evaluate(kept).unwrap(), true);

    kit::control(&sidecar, &["pause", "cache"]);
    browser
        .wait_for("document.querySelector('#s-cache h2').innerText.includes('paused')")
        .unwrap();
    kit::control(&sidecar, &["resume", "cache"]);
    kit::control(&sidecar, &["drain"]);
    browser
        .wait_for("document.querySelector('#top h1').innerText.includes('draining')")
        .unwrap();
    kit::control(&sidecar, &["undrain"]);
    kit::control(&sidecar, &["pin", "cache", &new.to_string()]);
    browser
        .wait_for("document.querySelector('#s-cache h2').innerText.includes('pinned')")
        .unwrap();
    picture(&mut browser, "pinned");
    assert_quiet(&browser, &sidecar);

    // It says so when there is nobody to ask.
    sidecar.server().kill().unwrap();
    browser.wait_for("pulse.className === 'lost'").unwrap();
}

/// Every element as wide as the window at most.
const FITS: &str = "document.documentElement.scrollWidth <= window.innerWidth";

#[test]
fn it_fits_a_phone_and_thirty_services() {
    let redis = kit::redis();
    let nobody = pilotfish_harness::ports::free().unwrap();
    let services = |count: usize| {
        let mut config = Config::new().unwrap().line("workers = 1");
        for n in 0..count {
            let node = if n % 9 == 4 { nobody } else { redis.addr };
            let name = match n {
                3 => "a-name-as-long-as-a-name-may-be-which-is-sixty-three-letters-ok".to_owned(),
                n => format!("service-{n}"),
            };
            let service = Service::new(&name, "redis")
                .unwrap()
                .line("required = false");
            let service = service.discover("kind", "redis");
            config = config.service(service.discover_all("nodes", &[node]));
        }
        Sidecar::start(kit::binary(), config, Until::Healthy).unwrap()
    };
    let mut browser = Browser::start(1360, 900).unwrap();
    for count in [1, 5, 30] {
        let sidecar = services(count);
        sidecar
            .wait_health("a primary", LONG, |health| {
                health["services"]["service-0"]["primary"].is_string()
            })
            .unwrap();
        browser.open(&url(&sidecar)).unwrap();
        browser.wait_for("pulse.className === 'live'").unwrap();
        let cards = format!("document.querySelectorAll('article').length === {count}");
        browser.wait_for(&cards).unwrap();
        for (width, height) in [(360, 740), (800, 900), (1360, 900)] {
            browser.resize(width, height).unwrap();
            browser
                .wait_for(&format!("window.innerWidth === {width}"))
                .unwrap();
            assert_eq!(
                browser.evaluate(FITS).unwrap(),
                true,
                "{count} services at {width}"
            );
            picture(&mut browser, &format!("services-{count}-{width}"));
        }
        browser.colour_scheme("dark").unwrap();
        picture(&mut browser, &format!("services-{count}-dark"));
        browser.colour_scheme("light").unwrap();
        assert_eq!(browser.complaints(), Vec::<String>::new());
        browser.go("about:blank").unwrap();
    }
}

#[test]
fn a_hostile_name_does_nothing() {
    let redis = kit::redis();
    let mut config = kit::config(kit::cache(&[redis.addr]));
    // The harness writes a harmless name; the last line wins nowhere in TOML, so it is replaced.
    config.lines.push(
        "region = '''\"><img src=x onerror=\"window.hit=1\"><script>window.hit=2</script>'''"
            .to_owned(),
    );
    let sidecar = kit::start_config(config);
    let mut browser = Browser::start(1000, 700).unwrap();
    browser.open(&url(&sidecar)).unwrap();
    browser.wait_for("pulse.className === 'live'").unwrap();
    assert!(text(&mut browser, "h1 small").contains("<script>window.hit=2</script>"));
    assert_eq!(browser.evaluate("window.hit === undefined").unwrap(), true);
    // And what would get through all the same is not run: the policy stands.
    let forced = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit=3\">'); \
        const s = document.createElement('script'); s.textContent = 'window.hit=4'; document.body.append(s); \
        window.hit === undefined";
    assert_eq!(browser.evaluate(forced).unwrap(), true);
}

/// Askers that wait are counted, and health does not wait for them.
#[test]
fn many_open_pages_cost_health_nothing() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let http = sidecar.config().http;
    let page = sidecar.http_get("/page/updates").unwrap().body;
    let tag = page.split("data-tag=\"").nth(1).unwrap()[..16].to_owned();
    let ask = format!("GET /page/updates?seen={tag} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut askers: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(http).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let health = request(&http.into(), "GET", "/healthz", "", LONG).unwrap();
        assert_eq!(health.status, 200);
    }
    // Something happens, and all of them are told, or were told to come back.
    kit::control(&sidecar, &["pause", "cache"]);
    let (mut told, mut later) = (0, 0);
    for stream in &mut askers {
        let mut answer = String::new();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.read_to_string(&mut answer).unwrap();
        match answer.get(..12) {
            Some("HTTP/1.1 200") if answer.contains("paused") => told += 1,
            Some("HTTP/1.1 204") if answer.contains("retry-after: 5") => later += 1,
            _ => panic!("{answer}"),
        }
    }
    println!("{told} told, {later} told to come later");
    assert!(
        told <= 32 && later >= 28 && told > 0,
        "{told} told, {later} later"
    );
}

use super::super::model::tests as sample;
use super::*;
use crate::drain::Phase;
use crate::telemetry::status::{ServiceStatus, Status, Word};

fn drawn(status: &Status) -> String {
    let event = sample::event(3, "primary", "new primary 10.0.1.21:6379");
    let model = Model::of(status, Phase::Serving, [&event]);
    let now = "2026-01-02T15:07:17Z".parse().unwrap();
    page(&live(&model, now)).into_string()
}

#[test]
fn it_says_what_there_is_to_know() {
    let html = drawn(&sample::status(vec![sample::service("cache")]));
    for said in [
        "<!doctype html>",
        "<title>ok · app-01 · Pilotfish</title>",
        "app-01 <small>in gra</small>",
        "Primary <b>10.0.1.21:6379</b> for <time class=\"age\"",
        ">3m11s</time>",
        "announced · generation 12 · term 7",
        "1204",
        "3 held",
        "connection refused",
        ">15:04:05.123</time>",
        "(uid 0, pid 17)",
        "3 servers, 1 sentinel",
        "1.2 MB behind",
    ] {
        assert!(html.contains(said), "{said} is not in {html}");
    }
    assert!(!html.contains("{{"), "every place is filled");
    assert!(
        !html.contains("class=\"chips\""),
        "one service needs no overview"
    );
}

/// Everything that comes from outside is text, wherever it stands.
#[test]
fn a_hostile_name_stays_text() {
    let evil = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{style}}\u{202e}";
    let text = || evil.to_owned();
    let mut service = ServiceStatus {
        name: text(),
        protocol: text(),
        discovery: text(),
        status: Word::Degraded,
        reason: Some(text()),
        primary: Some(text()),
        cause: text(),
        since: text(),
        held: vec![text()],
        troubles: vec![text()],
        ..sample::service("cache")
    };
    for endpoint in &mut service.endpoints {
        endpoint.address = text();
        endpoint.role = text();
        endpoint.detail = Some(text());
    }
    service.sources[0].address = text();
    service.sources[0].says = text();
    let status = Status {
        name: text(),
        region: Some(text()),
        version: text(),
        started: text(),
        config_error: Some(text()),
        ..sample::status(vec![
            service.clone(),
            service.clone(),
            service.clone(),
            service,
        ])
    };
    let mut event = sample::event(3, evil, evil);
    event.time = text();
    event.service = Some(text());
    let model = Model::of(&status, Phase::Serving, [&event]);
    let html = page(&live(&model, Timestamp::UNIX_EPOCH)).into_string();
    let own = html.replace(SCRIPT, "").replace(STYLE, "");
    assert_eq!(own.matches("<script").count(), 1, "{own}");
    assert!(!own.contains("<img") && !own.contains('\u{202e}'), "{own}");
    assert!(own.contains("&lt;script&gt;alert(1)"), "it is shown");
    // Nothing closes the quotes that it stands in.
    assert!(
        !own.contains("&quot;><") && !own.contains(" onerror=\""),
        "{own}"
    );
}

#[test]
fn the_number_of_services_is_not_limited() {
    for count in [0, 1, 5, 30] {
        let services = (0..count).map(|n| sample::service(&format!("service-{n}")));
        let html = drawn(&sample::status(services.collect()));
        assert_eq!(html.matches("<article ").count(), count);
        let chips = html.matches("<li><a class=\"good\"").count();
        assert_eq!(chips, if count < 4 { 0 } else { count });
        println!("{count} services: {} bytes", html.len());
        assert!(html.len() < 30_000 + count * 8_000, "{}", html.len());
    }
}

#[test]
fn only_what_changed_has_another_tag() {
    let tags = |status: &Status| {
        let html = drawn(status);
        let mut tags: Vec<String> = html
            .split("data-tag=\"")
            .map(|s| s[..16].to_owned())
            .collect();
        tags.remove(0);
        tags
    };
    let mut status = sample::status(vec![sample::service("a"), sample::service("b")]);
    let before = tags(&status);
    assert_eq!(before.len(), 4, "the whole, the head, two services");
    status.services[1].generation += 1;
    let after = tags(&status);
    assert_eq!(before[1..3], after[1..3]);
    assert!(before[0] != after[0] && before[3] != after[3]);
}

/// The style sheet's colours, of the light and of the dark scheme.
fn colours(dark: bool) -> std::collections::BTreeMap<&'static str, [u8; 3]> {
    let (light_part, rest) = STYLE
        .split_once("@media (prefers-color-scheme: dark)")
        .unwrap();
    let dark_part = rest.split_once("\n* {").unwrap().0;
    let part = if dark { dark_part } else { light_part };
    let lines = part
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--"));
    lines
        .map(|line| {
            let (name, value) = line.trim_end_matches(';').split_once(": #").unwrap();
            let byte = |at: usize| u8::from_str_radix(&value[at..at + 2], 16).unwrap();
            (name, [byte(0), byte(2), byte(4)])
        })
        .collect()
}

/// WCAG 2.2, "contrast ratio".
fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
    let luminance = |rgb: [u8; 3]| {
        let part = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(rgb[0]) + 0.7152 * part(rgb[1]) + 0.0722 * part(rgb[2])
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn letters_stand_out_in_both_schemes() {
    for dark in [false, true] {
        let colours = colours(dark);
        let mut pairs = vec![
            ("ink", "back"),
            ("ink", "card"),
            ("dim", "back"),
            ("dim", "card"),
            ("sea", "card"),
            ("sea", "back"),
            // The name and the lag of a server in its box.
            ("ink", "good-back"),
            ("ink", "bad-back"),
            ("dim", "good-back"),
            ("dim", "bad-back"),
        ];
        for (tone, back) in [
            ("good", "good-back"),
            ("wish", "wish-back"),
            ("warn", "warn-back"),
            ("bad", "bad-back"),
        ] {
            pairs.extend([(tone, back), (tone, "card"), (tone, "back")]);
        }
        for (ink, paper) in pairs {
            let ratio = contrast(colours[ink], colours[paper]);
            assert!(ratio >= 4.5, "{ink} on {paper}, dark {dark}: {ratio:.2}");
        }
    }
}

#[test]
fn every_tone_has_its_style() {
    for tone in Tone::ALL {
        let class = format!(".pill.{} ", tone.class());
        assert!(STYLE.contains(&class), "{class}");
    }
}

/// A browser takes what stands in the tags as it is, and the policy's hashes are made of that.
#[test]
fn style_and_script_cannot_end_early() {
    assert!(!STYLE.contains('<') && !SCRIPT.contains("</") && !SCRIPT.contains("<!--"));
    for elsewhere in ["http:", "https:", "//", "url(", "@import"] {
        assert!(!STYLE.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn a_few_reasons_are_enough_for_the_head() {
    let mut services: Vec<ServiceStatus> =
        (0..30).map(|n| sample::service(&format!("s{n}"))).collect();
    for service in services.iter_mut().skip(20) {
        service.status = Word::Failing;
        service.reason = Some("no primary".into());
    }
    let html = drawn(&sample::status(services));
    assert!(html.contains("s22: no primary") && !html.contains("s23: no primary"));
    assert!(html.contains("and 7 more, below"));
}

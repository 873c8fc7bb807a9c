//! A service as a picture: clients, the gate, and the servers behind it. 360 units wide, which is what
//! a phone has, so that its letters are as large there as anywhere.

use super::html::Html;
use super::model::{Gate, Node, Part, Service};

/// Rows that are drawn; the table below the picture has the rest.
const MOST: usize = 8;
const ROW: usize = 44;
const STEP: usize = ROW + 8;
/// Of a server's name, in letters of a width that fits its box.
const NAME: usize = 24;
/// So that the clients' box fits beside one server.
const LOWEST: usize = 84;

const PICTURE: &str = r#"<svg class="picture" viewBox="0 0 360 {{height}}" role="img" aria-label="{{label}}">
{{wires}}<g class="box clients"><rect x="1" y="{{top}}" width="76" height="64" rx="10"/>
<text x="39" y="{{count_y}}" class="count">{{sessions}}</text><text x="39" y="{{word_y}}" class="word">{{sessions_word}}</text></g>
{{held}}<path class="wire {{gate_class}}" d="M77 {{mid}} H98"/>
<g class="gate {{gate_class}}"><circle cx="115" cy="{{mid}}" r="16"/><g transform="translate(115 {{mid}})">{{sign}}</g><text x="115" y="{{gate_y}}" class="word">{{gate}}</text></g>
{{nodes}}{{more}}{{sources}}</svg>"#;

const WIRE: &str = r#"<path class="wire {{class}}" d="M131 {{mid}} C147 {{mid}} 143 {{y}} 159 {{y}}"/>
"#;

const NODE: &str = r#"<g class="box {{class}}"><title>{{title}}</title><rect x="160" y="{{top}}" width="199" height="44" rx="9"/><path class="edge" d="M165 {{edge_top}} v28"/>
<text x="174" y="{{name_y}}" class="name">{{name}}</text><text x="174" y="{{role_y}}" class="role">{{role}}</text><text x="350" y="{{role_y}}" class="lag">{{lag}}</text></g>
"#;

/// The service's picture.
pub fn picture(s: &Service) -> Html {
    let drawn = &s.nodes[..s.nodes.len().min(MOST)];
    let rows = (drawn.len() * STEP).saturating_sub(STEP - ROW).max(LOWEST);
    let mid = rows / 2 + 1;
    // A few servers stand in the middle, beside the clients.
    let first = (rows - (drawn.len() * STEP).saturating_sub(STEP - ROW)) / 2 + 1;
    let hidden = s.nodes.len() - drawn.len();
    let more_y = rows + 16;
    let below = rows + 2 + if hidden > 0 { 20 } else { 0 };
    let height = below + if s.sources.is_empty() { 0 } else { 26 };
    let at = |n: usize| first + n * STEP;
    let wires = drawn.iter().enumerate();
    let wires = wires.map(|(n, node)| wire(s.gate, node, mid, at(n) + ROW / 2));
    let nodes = drawn.iter().enumerate().map(|(n, node)| boxed(node, at(n)));
    Html::fill(
        PICTURE,
        &[
            ("height", number(height)),
            ("label", Html::text(&label(s))),
            ("wires", Html::all(wires)),
            ("top", number(mid - 32)),
            ("count_y", number(mid + 1)),
            ("word_y", number(mid + 18)),
            ("sessions", Html::text(&brief(s.sessions))),
            (
                "sessions_word",
                Html::fixed(if s.sessions == 1 {
                    "session"
                } else {
                    "sessions"
                }),
            ),
            ("held", held(s, mid)),
            ("gate_class", Html::fixed(s.gate.tone().class())),
            ("mid", number(mid)),
            ("sign", Html::fixed(sign(s.gate))),
            ("gate_y", number(mid + 31)),
            ("gate", Html::fixed(s.gate.word())),
            ("nodes", Html::all(nodes)),
            ("more", more(hidden, more_y)),
            ("sources", sources(s, below + 15)),
        ],
    )
}

fn number(n: usize) -> Html {
    Html::number(n as u64)
}

/// Up to four letters: `950`, `12k`, `3M`.
fn brief(n: usize) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{}k", n / 1000),
        _ => format!("{}M", n / 1_000_000),
    }
}

/// The picture in words.
fn label(s: &Service) -> String {
    let to = match &s.primary {
        Some(primary) => format!("go to the primary {primary}"),
        None => "wait: there is no primary".to_owned(),
    };
    let others = s
        .nodes
        .iter()
        .filter(|node| node.part == Part::Other)
        .count();
    let down = s
        .nodes
        .iter()
        .filter(|node| node.part == Part::Down)
        .count();
    format!(
        "{}: {} sessions, {} of them held; the gate is {}; clients {to}. Other servers: {others} up, {down} down.",
        s.name,
        s.sessions,
        s.held,
        s.gate.word()
    )
}

fn held(s: &Service, mid: usize) -> Html {
    if s.held == 0 {
        return Html::default();
    }
    Html::fill(
        r#"<text x="39" y="{{y}}" class="held">{{held}} held</text>"#,
        &[
            ("y", number(mid + 31 + 16)),
            ("held", Html::text(&brief(s.held))),
        ],
    )
}

/// What is drawn on the gate: a tick, two bars, an hourglass, a cross.
fn sign(gate: Gate) -> &'static str {
    match gate {
        Gate::Open => r#"<path d="M-7 0 L-2 5 L7 -5"/>"#,
        Gate::Paused => r#"<path d="M-4 -6 V6 M4 -6 V6"/>"#,
        Gate::Fenced => r#"<path d="M-5 -7 H5 L-5 7 H5 Z"/>"#,
        Gate::Bereft => r#"<path d="M-5 -5 L5 5 M5 -5 L-5 5"/>"#,
    }
}

fn wire(gate: Gate, node: &Node, mid: usize, y: usize) -> Html {
    let class = match (node.part, gate) {
        (Part::Primary, Gate::Open) => "flows",
        (Part::Primary, _) => "stopped",
        (Part::Other, _) => "spare",
        (Part::Down, _) => "broken",
    };
    let pieces = [
        ("class", Html::fixed(class)),
        ("mid", number(mid)),
        ("y", number(y)),
    ];
    Html::fill(WIRE, &pieces)
}

fn boxed(node: &Node, top: usize) -> Html {
    let (class, word) = match node.part {
        Part::Primary => ("primary", Some("primary")),
        Part::Other => ("other", None),
        Part::Down => ("down", Some("down")),
    };
    let role = match word {
        Some(word) if node.role == word => word.to_owned(),
        Some(word) => format!("{word} · {}", node.role),
        None => node.role.clone(),
    };
    let lag = node.lag.as_ref().map(|lag| format!("{lag} behind"));
    let detail = node.detail.as_ref().map(|detail| format!(": {detail}"));
    let title = format!("{} {role}{}", node.address, detail.unwrap_or_default());
    Html::fill(
        NODE,
        &[
            ("class", Html::fixed(class)),
            ("title", Html::text(&title)),
            ("top", number(top)),
            ("edge_top", number(top + 8)),
            ("name_y", number(top + 19)),
            ("role_y", number(top + 35)),
            ("name", Html::text(&middle_cut(&node.address, NAME))),
            ("role", Html::text(&middle_cut(&role, 18))),
            ("lag", Html::text(&lag.unwrap_or_default())),
        ],
    )
}

/// A name's beginning and its end, where the port is.
fn middle_cut(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.to_owned();
    }
    let (head, tail) = (most / 2, most - most / 2 - 1);
    let head = letters[..head].iter();
    let tail = letters[letters.len() - tail..].iter();
    head.chain(&['…']).chain(tail).collect()
}

fn more(hidden: usize, y: usize) -> Html {
    if hidden == 0 {
        return Html::default();
    }
    Html::fill(
        r#"<text x="259" y="{{y}}" class="word">and {{hidden}} more, in the table</text>"#,
        &[("y", number(y)), ("hidden", number(hidden))],
    )
}

/// A dot for each, as many as fit, and how many answer.
fn sources(s: &Service, y: usize) -> Html {
    if s.sources.is_empty() {
        return Html::default();
    }
    let up = s.sources.iter().filter(|source| source.up).count();
    let dot = |(n, source): (usize, &super::model::Source)| {
        let pieces = [
            ("x", number(167 + n * 14)),
            ("y", number(y - 4)),
            ("class", Html::fixed(if source.up { "up" } else { "away" })),
            (
                "title",
                Html::text(&format!("{}: {}", source.address, source.says)),
            ),
        ];
        Html::fill(
            r#"<circle class="{{class}}" cx="{{x}}" cy="{{y}}" r="4.5"><title>{{title}}</title></circle>"#,
            &pieces,
        )
    };
    let shown = s.sources.len().min(5);
    let pieces = [
        (
            "dots",
            Html::all(s.sources.iter().take(shown).enumerate().map(dot)),
        ),
        ("x", number(167 + shown * 14)),
        ("y", number(y)),
        ("up", number(up)),
        ("all", number(s.sources.len())),
    ];
    Html::fill(
        r#"<g class="sources">{{dots}}<text x="{{x}}" y="{{y}}" class="role">{{up}} of {{all}} sentinels answer</text></g>"#,
        &pieces,
    )
}

#[cfg(test)]
mod tests {
    use super::super::model::{Model, tests as sample};
    use super::*;
    use crate::drain::Phase;

    fn drawn(nodes: usize, long: bool) -> String {
        let mut service = sample::service("cache");
        service.endpoints = (0..nodes)
            .map(|n| {
                let name = if long {
                    "a-very-long-name.of-a-host.example.com"
                } else {
                    "10.0.0.1"
                };
                sample::endpoint(&format!("{name}:{n}"), "replica", n % 2 == 0)
            })
            .collect();
        let model = Model::of(&sample::status(vec![service]), Phase::Serving, []);
        picture(&model.services[0]).into_string()
    }

    #[test]
    fn every_server_has_its_box_up_to_a_limit() {
        for (nodes, boxes, rest) in [(0, 1, ""), (1, 2, ""), (7, 8, ""), (30, 8, "and 23 more")] {
            let svg = drawn(nodes, false);
            // The primary is none of them, and is shown too.
            assert_eq!(svg.matches("<g class=\"box ").count(), boxes + 1, "{nodes}");
            assert_eq!(svg.matches("class=\"name\"").count(), boxes);
            assert!(svg.contains(rest));
        }
    }

    #[test]
    fn long_names_keep_their_port() {
        assert_eq!(
            middle_cut("a-very-long-name.example.com:6379", 24),
            "a-very-long-…le.com:6379"
        );
        assert_eq!(middle_cut("short:1", 24), "short:1");
        assert!(drawn(2, true).contains("a-very-long-"));
        assert_eq!(brief(9_999), "9999");
        assert_eq!(brief(10_500), "10k");
    }

    #[test]
    fn it_is_said_in_words_too() {
        let svg = drawn(3, false);
        assert!(svg.contains(
            "role=\"img\" aria-label=\"cache: 1204 sessions, 3 of them held; the gate is open"
        ));
        assert!(svg.contains("1 of 1 sentinels answer"));
    }
}

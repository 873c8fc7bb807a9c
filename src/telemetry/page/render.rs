//! From the model to HTML. `now` is what ages are counted to.

use jiff::Timestamp;

use super::html::Html;
use super::model::{Badge, Head, Line, Model, Node, Part, Service, Source, Tone, tag};
use super::picture::picture;
use crate::telemetry::words::{age, short};

const PAGE: &str = include_str!("page.html");
const LIVE: &str = include_str!("live.html");
const CARD: &str = include_str!("card.html");
/// What stands between the tags, to the byte: the policy that is sent along names its hash.
pub const STYLE: &str = include_str!("style.css");
pub const SCRIPT: &str = include_str!("live.js");

/// The part that changes, and what a page around it needs to know of it.
#[derive(Clone, Debug)]
pub struct Live {
    pub html: Html,
    /// The same for what looks the same, ages apart.
    pub tag: String,
    title: Html,
    icon: Html,
}

/// The whole document.
pub fn page(live: &Live) -> Html {
    Html::fill(
        PAGE,
        &[
            ("title", live.title.clone()),
            ("icon", live.icon.clone()),
            ("style", Html::fixed(STYLE)),
            ("live", live.html.clone()),
            ("script", Html::fixed(SCRIPT)),
        ],
    )
}

/// What is shown now.
pub fn live(model: &Model, now: Timestamp) -> Live {
    let head = &model.head;
    let title = Html::text(&format!("{} · {} · Pilotfish", head.status, head.name));
    let (icon, tag_now) = (icon(head.tone), tag(model));
    let day = now.to_string();
    let day = day.get(..10).unwrap_or_default();
    let mut pieces = head_pieces(head, now);
    pieces.extend([
        ("tag", Html::text(&tag_now)),
        ("now", Html::number(now.as_millisecond())),
        ("title", title.clone()),
        ("icon", icon.clone()),
        ("top_tag", Html::text(&tag(&(head, tones(model))))),
        ("services", Html::number(model.services.len() as u64)),
        ("chips", chips(&model.services)),
        (
            "cards",
            Html::all(model.services.iter().map(|s| card(s, now))),
        ),
        (
            "events",
            Html::all(model.events.iter().map(|line| event(line, day))),
        ),
    ]);
    Live {
        html: Html::fill(LIVE, &pieces),
        tag: tag_now,
        title,
        icon,
    }
}

/// What the head shows of the services.
fn tones(model: &Model) -> Vec<(&str, Tone)> {
    model
        .services
        .iter()
        .map(|s| (s.name.as_str(), s.tone))
        .collect()
}

fn head_pieces(head: &Head, now: Timestamp) -> Vec<(&'static str, Html)> {
    let region = head.region.as_ref().map(|region| {
        Html::fill(
            " <small>in {{region}}</small>",
            &[("region", Html::text(region))],
        )
    });
    let why = |text: &str, tone: Tone| {
        Html::fill(
            r#"<p class="why {{tone}}">{{text}}</p>"#,
            &[("tone", class(tone)), ("text", Html::text(text))],
        )
    };
    let more = match head.more {
        0 => Html::default(),
        more => why(&format!("and {more} more, below"), head.tone),
    };
    let reasons = head.reasons.iter().map(|reason| why(reason, head.tone));
    let config = head.config_error.as_ref().map(|error| {
        let text = format!("The changed configuration is not followed: {error}");
        why(&text, Tone::Bad)
    });
    vec![
        ("tone", class(head.tone)),
        ("name", Html::text(&head.name)),
        ("region", region.unwrap_or_default()),
        ("status", Html::fixed(head.status)),
        ("meaning", Html::fixed(head.meaning)),
        ("reason", Html::all(reasons.chain([more]))),
        ("config_error", config.unwrap_or_default()),
        ("sessions", Html::number(head.sessions as u64)),
        ("held", Html::number(head.held as u64)),
        ("started", Html::text(&head.started)),
        ("uptime", aged(&head.started, now)),
        ("version", Html::text(&head.version)),
        ("pid", Html::number(head.pid)),
    ]
}

fn class(tone: Tone) -> Html {
    Html::fixed(tone.class())
}

fn aged(since: &str, now: Timestamp) -> Html {
    Html::text(&age(since, now).map_or_else(|| "?".to_owned(), short))
}

/// A dot in the colour of the whole, for the tab.
fn icon(tone: Tone) -> Html {
    Html::fixed(match tone {
        Tone::Good | Tone::Quiet => {
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' r='3' fill='%2319a568'/%3E%3C/svg%3E"
        }
        Tone::Wish => {
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' r='3' fill='%237c5ce6'/%3E%3C/svg%3E"
        }
        Tone::Warn => {
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Cpath d='M4 1 7.5 7h-7z' fill='%23e09a1a'/%3E%3C/svg%3E"
        }
        Tone::Bad => {
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Cpath d='M1 1h6v6h-6z' fill='%23d8382f'/%3E%3C/svg%3E"
        }
    })
}

/// All services at a glance, where there are several.
fn chips(services: &[Service]) -> Html {
    if services.len() < 4 {
        return Html::default();
    }
    let chip = |s: &Service| {
        let word = match s.tone {
            Tone::Good => Html::default(),
            _ => Html::fill(": {{status}}", &[("status", Html::fixed(s.status))]),
        };
        Html::fill(
            r##"<li><a class="{{tone}}" href="#s-{{name}}">{{name}}{{word}}</a></li>"##,
            &[
                ("tone", class(s.tone)),
                ("name", Html::text(&s.name)),
                ("word", word),
            ],
        )
    };
    Html::fill(
        r#"<ul class="chips" aria-label="All services">{{chips}}</ul>"#,
        &[("chips", Html::all(services.iter().map(chip)))],
    )
}

fn card(s: &Service, now: Timestamp) -> Html {
    let primary = match &s.primary {
        Some(primary) => Html::fill(
            "Primary <b>{{primary}}</b>",
            &[("primary", Html::text(primary))],
        ),
        None => Html::fixed("<b>No primary</b>"),
    };
    let term = s.term.map(|term| {
        let term = Html::text(&term.to_string());
        Html::fill(" · term {{term}}", &[("term", term)])
    });
    let trouble = |text: &String| {
        let text = [("text", Html::text(text))];
        Html::fill(r#"<p class="trouble">{{text}}</p>"#, &text)
    };
    let badge = |Badge(tone, word): &Badge| {
        Html::fill(
            r#" <span class="pill {{tone}}">{{word}}</span>"#,
            &[("tone", class(*tone)), ("word", Html::text(word))],
        )
    };
    Html::fill(
        CARD,
        &[
            ("tag", Html::text(&tag(s))),
            ("tone", class(s.tone)),
            ("name", Html::text(&s.name)),
            ("status", Html::fixed(s.status)),
            ("badges", Html::all(s.badges.iter().map(badge))),
            ("kind", Html::text(&s.kind)),
            ("picture", picture(s)),
            ("primary", primary),
            ("since", Html::text(&s.since)),
            ("age", aged(&s.since, now)),
            ("cause", Html::text(&s.cause)),
            ("generation", Html::text(&s.generation.to_string())),
            ("term", term.unwrap_or_default()),
            ("troubles", Html::all(s.troubles.iter().map(trouble))),
            ("summary", summary(s)),
            ("endpoints", endpoints(&s.nodes)),
            ("sources", sources(&s.sources)),
        ],
    )
}

fn summary(s: &Service) -> Html {
    let plural = |n: usize, one: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    let mut text = plural(s.nodes.len(), "server");
    if !s.sources.is_empty() {
        text += &format!(", {}", plural(s.sources.len(), "sentinel"));
    }
    Html::text(&text)
}

fn endpoints(nodes: &[Node]) -> Html {
    let row = |node: &Node| {
        let used = match node.part {
            Part::Primary => "primary",
            Part::Other => "up",
            Part::Down => "down",
        };
        let more = node.detail.as_ref().map(|detail| {
            let detail = [("detail", Html::text(detail))];
            Html::fill(
                "<tr class=\"more\"><td colspan=\"4\">{{detail}}</td></tr>\n",
                &detail,
            )
        });
        let class = match more {
            Some(_) => Html::fixed("more-follows"),
            None => Html::default(),
        };
        Html::fill(
            "<tr class=\"{{class}}\"><td>{{address}}</td><td>{{used}}</td><td>{{role}}</td><td>{{lag}}</td></tr>\n{{more}}",
            &[
                ("class", class),
                ("address", Html::text(&node.address)),
                ("used", Html::fixed(used)),
                ("role", Html::text(&node.role)),
                ("lag", Html::text(node.lag.as_deref().unwrap_or_default())),
                ("more", more.unwrap_or_default()),
            ],
        )
    };
    if nodes.is_empty() {
        return Html::fixed("<p>None is known yet.</p>");
    }
    Html::fill(
        "<div class=\"wide\"><table><thead><tr><th>server</th><th>is</th><th>says</th><th>behind</th></tr></thead><tbody>\n{{rows}}</tbody></table></div>",
        &[("rows", Html::all(nodes.iter().map(row)))],
    )
}

fn sources(sources: &[Source]) -> Html {
    if sources.is_empty() {
        return Html::default();
    }
    let row = |source: &Source| {
        let up = if source.up {
            "answers"
        } else {
            "does not answer"
        };
        Html::fill(
            "<tr><td>{{address}}</td><td>{{up}}</td><td>{{says}}</td></tr>\n",
            &[
                ("address", Html::text(&source.address)),
                ("up", Html::fixed(up)),
                ("says", Html::text(&source.says)),
            ],
        )
    };
    Html::fill(
        "<div class=\"wide\"><table><thead><tr><th>sentinel</th><th>now</th><th>says</th></tr></thead><tbody>\n{{rows}}</tbody></table></div>",
        &[("rows", Html::all(sources.iter().map(row)))],
    )
}

/// The date only where it is not today's.
fn event(line: &Line, today: &str) -> Html {
    let when = line
        .time
        .strip_prefix(today)
        .map(|rest| rest.trim_start_matches('T'));
    let when = when
        .unwrap_or(&line.time)
        .trim_end_matches('Z')
        .replace('T', " ");
    let service = line.service.as_ref().map(|service| {
        let name = Html::text(service);
        Html::fill(
            r##" <a href="#s-{{name}}">{{name}}</a>"##,
            &[("name", name)],
        )
    });
    let by = line.by.as_ref().map(|by| {
        Html::fill(
            r#" <span class="by">({{by}})</span>"#,
            &[("by", Html::text(by))],
        )
    });
    Html::fill(
        "<li id=\"e-{{seq}}\" class=\"{{tone}}\"><time class=\"when\" datetime=\"{{time}}\">{{when}}</time>{{service}} <b class=\"{{tone}}\">{{event}}</b> {{message}}{{by}}</li>\n",
        &[
            ("seq", Html::number(line.seq)),
            ("tone", class(line.tone)),
            ("time", Html::text(&line.time)),
            ("when", Html::text(&when)),
            ("service", service.unwrap_or_default()),
            ("event", Html::text(&line.event)),
            ("message", Html::text(&line.message)),
            ("by", by.unwrap_or_default()),
        ],
    )
}

#[cfg(test)]
mod tests;

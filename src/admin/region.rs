//! `/v1/region/...`: the regional cutover, over the admin socket.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::command::{Asked, Unknown, only};
use super::controls::Controls;
use super::handlers::{Answer, ndjson, whole};
use crate::cutover::desk::{Class, Desk, Lines, Refusal, Started, Wish};
use crate::cutover::machine::Event;
use crate::cutover::plan::Way;
use crate::events::By;
use crate::telemetry::problem::{Problem, json};

/// What can be asked of the cutover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Region {
    Status,
    /// Changes nothing.
    Plan(Move),
    Cutover(Move),
    Failback(Move),
    Resume,
    Rollback(Back),
    History,
}

/// The body of `plan`, `cutover` and `failback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Move {
    /// For `failback` and its plan: home, when it is missing.
    pub to: Option<String>,
    pub reason: Option<String>,
    #[serde(rename = "override")]
    pub overrides: Vec<String>,
    /// Of the plan that was shown: another one is not carried out.
    pub digest: Option<String>,
    /// For `plan`: of a failback.
    pub failback: bool,
}

/// The body of `rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Back {
    pub reason: Option<String>,
    /// Change nothing, and consider it settled by hand.
    pub give_up: bool,
}

impl Region {
    pub fn method(&self) -> Method {
        match self {
            Self::Status | Self::History => Method::GET,
            Self::Plan(_) | Self::Cutover(_) | Self::Failback(_) => Method::POST,
            Self::Resume | Self::Rollback(_) => Method::POST,
        }
    }

    pub fn path(&self) -> &'static str {
        match self {
            Self::Status => "/v1/region/status",
            Self::Plan(_) => "/v1/region/plan",
            Self::Cutover(_) => "/v1/region/cutover",
            Self::Failback(_) => "/v1/region/failback",
            Self::Resume => "/v1/region/resume",
            Self::Rollback(_) => "/v1/region/rollback",
            Self::History => "/v1/region/history",
        }
    }

    /// JSON; empty where there is nothing to say.
    pub fn body(&self) -> Vec<u8> {
        // Strings and truth values can always be written.
        match self {
            Self::Plan(wish) | Self::Cutover(wish) | Self::Failback(wish) => {
                serde_json::to_vec(wish).unwrap_or_default()
            }
            Self::Rollback(back) => serde_json::to_vec(back).unwrap_or_default(),
            Self::Status | Self::Resume | Self::History => Vec::new(),
        }
    }

    /// Reads what [`Region::path`] and [`Region::body`] write.
    ///
    /// # Errors
    /// When there is no such verb, or its body makes no sense.
    pub fn parse(verb: &str, asked: &Asked<'_>) -> Result<Self, Unknown> {
        let region = match verb {
            "status" => return Ok(Self::Status),
            "history" => return Ok(Self::History),
            "plan" => Self::Plan,
            "cutover" => Self::Cutover,
            "failback" => Self::Failback,
            "resume" => {
                only(asked.method, &Method::POST)?;
                return Ok(Self::Resume);
            }
            "rollback" => {
                only(asked.method, &Method::POST)?;
                return Ok(Self::Rollback(body(asked.body)?));
            }
            _ => return Err(Unknown::Path),
        };
        only(asked.method, &Method::POST)?;
        Ok(region(body(asked.body)?))
    }
}

/// An empty body is an empty object.
fn body<T: Default + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Unknown> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| Unknown::Content(format!("the body: {error}")))
}

impl Move {
    fn wish(self, way: Way) -> Wish {
        Wish {
            way,
            to: self.to,
            reason: self.reason,
            overrides: self.overrides,
            digest: self.digest,
        }
    }
}

/// Answers; runs are answered line by line, from their beginning to their result.
pub async fn answer(controls: &Arc<Controls>, region: Region, by: By) -> Answer {
    let answered = match &controls.cutover {
        None => Err(Refusal::NotConfigured),
        Some(desk) => {
            // Until it has begun: from then on the desk says that it runs.
            let at_work = match region {
                Region::Status | Region::History | Region::Plan(_) => Ok(None),
                _ => controls.freeze.begin().map(Some).ok_or(Refusal::TakenOver),
            };
            match at_work {
                Ok(_at_work) => carried_out(desk, region, by).await,
                Err(refusal) => Err(refusal),
            }
        }
    };
    answered.unwrap_or_else(|refusal| {
        let code = match refusal.class() {
            Class::Usage => StatusCode::UNPROCESSABLE_ENTITY,
            Class::Rule => StatusCode::CONFLICT,
            Class::Failed => StatusCode::BAD_GATEWAY,
        };
        whole(Problem::new(code, refusal.to_string()).response())
    })
}

async fn carried_out(desk: &Arc<Desk>, region: Region, by: By) -> Result<Answer, Refusal> {
    let by = Some(by);
    let started = match region {
        Region::Status => return Ok(whole(json(StatusCode::OK, &desk.status().await?))),
        Region::History => return Ok(whole(json(StatusCode::OK, &desk.history().await?))),
        Region::Plan(wish) => {
            let way = match wish.failback {
                true => Way::Failback,
                false => Way::Cutover,
            };
            let preview = desk.plan(wish.wish(way)).await?;
            return Ok(whole(json(StatusCode::OK, &preview)));
        }
        Region::Cutover(wish) => desk.start(wish.wish(Way::Cutover), by).await?,
        Region::Failback(wish) => desk.start(wish.wish(Way::Failback), by).await?,
        Region::Resume => desk.go_on(Event::Resumed { by }).await?,
        Region::Rollback(Back {
            reason,
            give_up: false,
        }) => desk.go_on(Event::RollbackAsked { by, reason }).await?,
        Region::Rollback(Back { reason, .. }) => {
            let reason = reason.unwrap_or_else(|| "settled by hand".to_owned());
            desk.go_on(Event::GivenUp { by, reason }).await?
        }
    };
    Ok(follow(desk, &started))
}

/// The lines of a run, as they come.
fn follow(desk: &Desk, started: &Started) -> Answer {
    let lines = Lines::new(desk.feed(), started);
    let follow = stream::unfold(lines, |mut lines| async move {
        let fresh = lines.next().await?;
        let mut text = String::new();
        for line in fresh {
            // Plain strings and numbers can always be written, and a String takes them.
            if let Ok(line) = serde_json::to_string(&*line) {
                let _ = writeln!(text, "{line}");
            }
        }
        Some((Ok(Frame::data(Bytes::from(text))), lines))
    });
    ndjson(BodyExt::boxed_unsync(StreamBody::new(follow)))
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::*;

    #[test]
    fn the_server_reads_what_the_client_writes() {
        let wish = Move {
            to: Some("rbx".to_owned()),
            reason: Some("fire".to_owned()),
            overrides: vec!["cooldown".to_owned()],
            digest: Some("00".to_owned()),
            failback: true,
        };
        let back = Back {
            reason: None,
            give_up: true,
        };
        for region in [
            Region::Status,
            Region::History,
            Region::Plan(wish.clone()),
            Region::Cutover(wish.clone()),
            Region::Failback(wish),
            Region::Resume,
            Region::Rollback(back),
        ] {
            let command = Command::Region(region);
            let (method, path, body) = (command.method(), command.path(), command.body());
            let asked = Asked {
                method: &method,
                path: &path,
                query: None,
                body: &body,
            };
            assert_eq!(Command::parse(&asked), Ok(command));
            let other = Method::DELETE;
            let asked = Asked {
                method: &other,
                ..asked
            };
            assert!(matches!(
                Command::parse(&asked),
                Err(Unknown::Method { .. })
            ));
        }
        let asked = |path: &'static str, body: &'static [u8]| Asked {
            method: &Method::POST,
            path,
            query: None,
            body,
        };
        let empty = Command::parse(&asked("/v1/region/rollback", b""));
        assert_eq!(
            empty,
            Ok(Command::Region(Region::Rollback(Back::default())))
        );
        let odd = Command::parse(&asked("/v1/region/cutover", b"{\"too\":1}"));
        assert!(matches!(odd, Err(Unknown::Content(_))), "{odd:?}");
        assert_eq!(
            Command::parse(&asked("/v1/region/x", b"")),
            Err(Unknown::Path)
        );
    }
}

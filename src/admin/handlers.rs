//! Answers commands.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, StatusCode};

use super::command::{Command, Unknown};
use super::status;
use crate::telemetry::problem::{Problem, json, method_not_allowed};
use crate::telemetry::surface::Surface;

type Answer = Response<Full<Bytes>>;

/// Answers whatever was asked.
pub fn respond(surface: &Surface, method: &Method, path: &str) -> Answer {
    match Command::parse(method, path) {
        Ok(command) => answer(surface, &command),
        Err(Unknown::Method { allow }) => method_not_allowed(allow),
        Err(Unknown::Path) => {
            let detail = "there is /v1/status and /v1/services/NAME";
            Problem::new(StatusCode::NOT_FOUND, detail).response()
        }
    }
}

fn answer(surface: &Surface, command: &Command) -> Answer {
    match command {
        Command::Status => json(StatusCode::OK, &status::status(surface)),
        Command::Service(name) => match status::service(surface, name) {
            Some(service) => json(StatusCode::OK, &service),
            None => Problem::new(StatusCode::NOT_FOUND, no_such(surface)).response(),
        },
    }
}

fn no_such(surface: &Surface) -> String {
    let shown = surface.shown();
    let names: Vec<&str> = shown.services.iter().map(|view| &*view.name).collect();
    format!("there is no such service: there is {}", names.join(", "))
}

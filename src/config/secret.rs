//! User names and passwords, which are better not in the config itself.

use std::path::{Path, PathBuf};

use super::report::{Bad, Spot};
use super::table::{Item, Table};
use super::value::{optional_path, optional_text};
use crate::secret::{Credentials, Secret};

/// Where a secret is kept, outside the config.
pub enum SecretSource<'a> {
    File(&'a Path),
    Env(&'a str),
}

/// The keys of one pair of user name and password.
pub struct Keys {
    pub username: &'static str,
    pub literal: &'static str,
    pub file: &'static str,
    pub env: &'static str,
    /// Whether a user always has one.
    pub password_needed: bool,
}

pub const SERVER: Keys = Keys {
    username: "username",
    literal: "password",
    file: "password_file",
    env: "password_env",
    password_needed: true,
};

pub const SENTINEL: Keys = Keys {
    username: "sentinel_username",
    literal: "sentinel_password",
    file: "sentinel_password_file",
    env: "sentinel_password_env",
    password_needed: true,
};

pub fn read(table: &mut Table, keys: &Keys) -> Credentials {
    let username = table.read(keys.username, optional_text).flatten();
    let (given, password) = lone(table, keys);
    if keys.password_needed
        && username.is_some()
        && !given
        && let Some(spot) = table.name_spot(keys.username)
    {
        let help = format!("add {} or {}", keys.file, keys.env);
        table
            .report()
            .error(&spot, Bad::new("a user name without a password", help));
    }
    Credentials {
        username: username.unwrap_or_default(),
        password,
    }
}

/// A secret that belongs to no user name: whether one is given, and what it is, where it was read.
pub fn lone(table: &mut Table, keys: &Keys) -> (bool, Option<Secret>) {
    let literal = literal(table, keys);
    let from_file = from_file(table, keys);
    let from_env = from_env(table, keys);
    let given: Vec<Spot> = [keys.literal, keys.file, keys.env]
        .into_iter()
        .filter(|key| !table.is_blank(key))
        .filter_map(|key| table.name_spot(key))
        .collect();
    for second in given.iter().skip(1) {
        let help = format!(
            "keep one of {}, {} and {}",
            keys.literal, keys.file, keys.env
        );
        table
            .report()
            .error(second, Bad::new("the password is given twice", help));
    }
    (!given.is_empty(), literal.or(from_file).or(from_env))
}

fn literal(table: &mut Table, keys: &Keys) -> Option<Secret> {
    let text = table.read(keys.literal, optional_text).flatten()?;
    if let Some(spot) = table.name_spot(keys.literal) {
        let help = format!(
            "put it into a file and name that with {}, or use {}",
            keys.file, keys.env
        );
        table
            .report()
            .warn(&spot, "a password in plain sight", help);
    }
    Some(Secret::new(text))
}

fn from_file(table: &mut Table, keys: &Keys) -> Option<Secret> {
    let report = table.report();
    let fetch = |item: &Item| {
        let Some(path): Option<PathBuf> = optional_path(item)? else {
            return Ok(None);
        };
        let read = report.outside.secret(&SecretSource::File(&path));
        read.map_err(|e| {
            Bad::new(
                e,
                "a file that this user can read, with the password and nothing else",
            )
        })
    };
    table.read(keys.file, fetch).flatten()
}

fn from_env(table: &mut Table, keys: &Keys) -> Option<Secret> {
    let report = table.report();
    let fetch = |item: &Item| {
        let Some(name) = optional_text(item)? else {
            return Ok(None);
        };
        if name.contains(['=', '\0']) {
            let help = "the name of an environment variable, like \"REDIS_PASSWORD\"";
            return Err(Bad::new("this cannot be a variable's name", help));
        }
        let read = report.outside.secret(&SecretSource::Env(&name));
        read.map_err(|e| Bad::new(e, "set the variable for this process, or use a file"))
    };
    table.read(keys.env, fetch).flatten()
}

//! What has to be true before anything is changed.

use super::server::{Place, Server, Servers};
use crate::addr::Addr;
use crate::handover::judge::choose;
use crate::handover::{Case, Old, Reason, Refused};

/// `pg_promote` came with it.
const OLDEST: u64 = 120_000;
/// A privilege for a single setting came with it.
const PARAMETERS: u64 = 150_000;

fn unreachable(why: String) -> Refused {
    Refused::new(Reason::Unreachable, why)
}

/// Who takes over, and from whom; nobody, when the old one is gone. Changes nothing.
pub async fn prepare(
    servers: &Servers,
    case: &Case,
    max_lag: u64,
) -> Result<(Addr, Option<Addr>), Refused> {
    let (target, old) = match (case.ask.old, &case.known.primary) {
        (Old::Serves, Some(old)) => (choose(&case.ask, &case.known)?, Some(old)),
        _ => (successor(servers, case).await?, None),
    };
    let mut standby = servers.open(&target).await.map_err(unreachable)?;
    let new = standby.facts().await.map_err(unreachable)?;
    if let Some(lack) = new.lacks_to_promote() {
        let why = format!("{target}: {lack}");
        return Err(Refused::new(Reason::Unable, why));
    }
    let Some(old) = old else {
        return Ok((target, None));
    };
    let mut primary = servers.open(old).await.map_err(unreachable)?;
    let was = primary.facts().await.map_err(unreachable)?;
    if let Some(lack) = was.lacks_to_close() {
        return Err(Refused::new(Reason::Unable, format!("{old}: {lack}")));
    }
    if was.system != new.system {
        let why = format!("{old} and {target} are of different clusters");
        return Err(Refused::new(Reason::UnfitTarget, why));
    }
    let (head, place) = (primary.place().await, standby.place().await);
    let (head, place) = (head.map_err(unreachable)?, place.map_err(unreachable)?);
    if head.in_recovery || was.read_only {
        let why = format!("{old} is not a primary that takes writes now");
        return Err(Refused::new(Reason::Uncertain, why));
    }
    keeps_up(&place, &new, head.replayed, max_lag)
        .map_err(|(reason, why)| Refused::new(reason, format!("{target} {why}")))?;
    Ok((target, Some(old.clone())))
}

/// Whether a standby will have everything soon after the primary was closed.
fn keeps_up(place: &Place, facts: &Facts, head: u64, max_lag: u64) -> Result<(), (Reason, String)> {
    let unfit = |why: &str| Err((Reason::UnfitTarget, why.to_owned()));
    let lag = head.saturating_sub(place.replayed);
    if !place.in_recovery {
        return unfit("is no standby");
    }
    if place.paused {
        return unfit("does not replay: it is paused");
    }
    if !facts.receives {
        return unfit("does not stream from anybody");
    }
    if lag > max_lag {
        return Err((Reason::Behind, format!("is {lag} bytes behind")));
    }
    Ok(())
}

/// Of the standbys that answer the one that has most, when no primary does.
async fn successor(servers: &Servers, case: &Case) -> Result<Addr, Refused> {
    let mut best: Option<(u64, Addr)> = None;
    let mut wanted = None;
    for addr in servers.all() {
        let asked = async {
            let mut server = servers.open(addr).await?;
            Ok::<_, String>((server.facts().await?, server.place().await?))
        };
        let Ok((facts, place)) = asked.await else {
            continue;
        };
        if !place.in_recovery {
            if !facts.read_only {
                let why = format!("{addr} answers, and is a primary");
                return Err(Refused::new(Reason::OldAlive, why));
            }
            continue;
        }
        let has = place.received.max(place.replayed);
        if case.ask.to.as_ref() == Some(addr) {
            wanted = Some(has);
        }
        if best.as_ref().is_none_or(|(most, _)| has > *most) {
            best = Some((has, addr.clone()));
        }
    }
    let Some((most, best)) = best else {
        let why = "no standby can be asked";
        return Err(Refused::new(Reason::NoReplica, why));
    };
    match (&case.ask.to, wanted) {
        (None, _) => Ok(best),
        (Some(to), Some(has)) if has == most => Ok(to.clone()),
        (Some(to), Some(has)) => {
            let why = format!("{to} lacks {} bytes that {best} has", most - has);
            Err(Refused::new(Reason::Behind, why))
        }
        (Some(to), None) => {
            let why = format!("{to} is no standby that can be asked");
            Err(Refused::new(Reason::UnfitTarget, why))
        }
    }
}

/// What a server lets us know and do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    system: String,
    version: u64,
    read_only: bool,
    /// It streams from somebody.
    receives: bool,
    /// Accounts or databases have a word of their own about what the fence sets.
    overridden: bool,
    may_set: bool,
    may_reload: bool,
    may_end: bool,
    may_see: bool,
    may_promote: bool,
}

impl Facts {
    fn lacks_to_promote(&self) -> Option<&'static str> {
        if self.version < OLDEST {
            return Some("pg_promote is there since PostgreSQL 12");
        }
        (!self.may_promote).then_some("the account needs EXECUTE on pg_promote")
    }

    fn lacks_to_close(&self) -> Option<&'static str> {
        for (has, lack) in [
            (self.version >= OLDEST, "it is older than PostgreSQL 12"),
            (
                self.may_set,
                "the account needs ALTER SYSTEM for default_transaction_read_only (PostgreSQL 15), \
                 or to be a superuser",
            ),
            (
                self.may_reload,
                "the account needs EXECUTE on pg_reload_conf",
            ),
            (self.may_end, "the account needs pg_signal_backend"),
            (self.may_see, "the account needs pg_monitor"),
            (
                !self.overridden,
                "an account or a database has a default_transaction_read_only of its own, \
                 and would not be closed out",
            ),
        ] {
            if !has {
                return Some(lack);
            }
        }
        None
    }
}

impl Server {
    async fn facts(&mut self) -> Result<Facts, String> {
        const QUESTION: &str = "SELECT \
            (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
            pg_catalog.current_setting('server_version_num'), \
            pg_catalog.current_setting('default_transaction_read_only'), \
            (SELECT pg_catalog.count(*) > 0 FROM pg_catalog.pg_stat_wal_receiver), \
            (SELECT pg_catalog.count(*) > 0 FROM pg_catalog.pg_db_role_setting, \
                pg_catalog.unnest(setconfig) AS own WHERE own LIKE 'default_transaction_read_only=%'), \
            (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), \
            pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE'), \
            pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'), \
            pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')";
        const PROMOTE: &str = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'EXECUTE')";
        const SET: &str = "SELECT pg_catalog.has_parameter_privilege(\
            'default_transaction_read_only', 'ALTER SYSTEM')";
        let row = self.run(QUESTION).await?;
        let text = |n: usize| row.get(n).and_then(Option::as_deref).unwrap_or_default();
        let yes = |n: usize| text(n) == "t";
        let mut facts = Facts {
            system: text(0).to_owned(),
            version: text(1).parse().unwrap_or_default(),
            read_only: text(2) == "on",
            receives: yes(3),
            overridden: yes(4),
            may_set: yes(5),
            may_reload: yes(6),
            may_end: yes(7),
            may_see: yes(8),
            may_promote: false,
        };
        let is = |row: Vec<Option<String>>| row.first() == Some(&Some("t".to_owned()));
        if facts.version >= OLDEST {
            facts.may_promote = is(self.run(PROMOTE).await?);
        }
        if facts.version >= PARAMETERS && !facts.may_set {
            facts.may_set = is(self.run(SET).await?);
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> Facts {
        Facts {
            system: "7655".into(),
            version: 150_008,
            read_only: false,
            receives: true,
            overridden: false,
            may_set: true,
            may_reload: true,
            may_end: true,
            may_see: true,
            may_promote: true,
        }
    }

    #[test]
    fn who_keeps_up() {
        let place = Place {
            in_recovery: true,
            paused: false,
            replayed: 900,
            received: 950,
        };
        let checked = |place: Place, receives, max_lag| {
            let facts = Facts { receives, ..able() };
            keeps_up(&place, &facts, 1000, max_lag).map_err(|(reason, _)| reason)
        };
        assert_eq!(checked(place, true, 100), Ok(()));
        assert_eq!(checked(place, true, 99), Err(Reason::Behind));
        assert_eq!(checked(place, false, 100), Err(Reason::UnfitTarget));
        let paused = Place {
            paused: true,
            ..place
        };
        assert_eq!(checked(paused, true, 100), Err(Reason::UnfitTarget));
        let primary = Place {
            in_recovery: false,
            ..place
        };
        assert_eq!(checked(primary, true, 100), Err(Reason::UnfitTarget));
    }

    #[test]
    fn what_an_account_lacks() {
        assert_eq!(
            (able().lacks_to_close(), able().lacks_to_promote()),
            (None, None)
        );
        type Change = fn(&mut Facts);
        let changes: [(Change, &str); 6] = [
            (|f| f.version = 110_000, "PostgreSQL 12"),
            (|f| f.may_set = false, "ALTER SYSTEM"),
            (|f| f.may_reload = false, "pg_reload_conf"),
            (|f| f.may_end = false, "pg_signal_backend"),
            (|f| f.may_see = false, "pg_monitor"),
            (|f| f.overridden = true, "of its own"),
        ];
        for (change, lack) in changes {
            let mut facts = able();
            change(&mut facts);
            assert!(facts.lacks_to_close().unwrap().contains(lack), "{lack}");
        }
        let mute = Facts {
            may_promote: false,
            ..able()
        };
        assert!(mute.lacks_to_promote().is_some());
    }
}

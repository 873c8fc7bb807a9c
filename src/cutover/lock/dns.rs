//! A lock in the zone itself: a TXT record that is changed only by comparing and setting in one step,
//! which the server does. Providers that cannot are refused.
//!
//! The record is never removed: a free lock keeps its epoch. A lease ends by the wall clock of whoever
//! looks, so it is taken over only `margin` after its end, and by comparing and setting as well.

use std::time::Duration;

use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};

use super::word::Word;
use super::{Claim, Held, Holder, Lock, LockError};
use crate::clock::{Clock, Moment};
use crate::cutover::BoxFuture;
use crate::dns::record::records;
use crate::dns::{
    self, Change, CompareAndSet, DnsError, DnsSpec, Key, Kind, Name, Provider, RecordType, Retry,
    RrSet,
};

/// The lock of a zone.
pub struct DnsLock {
    provider: Box<dyn Provider>,
    key: Key,
    /// How far clocks may be apart.
    margin: Duration,
    clock: Clock,
}

/// The lock can be read, and yet the change did not get through: so often, with such a pause.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(400);

enum Tried {
    Held(Held),
    InTheWay(LockError),
}

/// What is needed to renew.
struct Ticket {
    /// As it stands in the zone.
    set: RrSet,
    claim: Claim,
    nonce: String,
    /// After this nobody can be sure any more.
    good_until: Moment,
}

impl DnsLock {
    /// # Errors
    /// When the provider cannot compare and set, or its settings cannot be used.
    pub fn new(
        dns: &DnsSpec,
        name: &Name,
        margin: Duration,
        env: &dns::Env,
    ) -> Result<Self, LockError> {
        let provider = dns::provider(dns, env).map_err(|e| LockError::Refused(e.to_string()))?;
        let kind = provider.kind().as_str();
        if provider.capabilities().compare_and_set != CompareAndSet::Server {
            return Err(LockError::Refused(format!(
                "{kind} cannot compare and set in one step, so two could hold a lock there: \
                 use `lock = {{ kind = \"etcd\" }}`, or \"file\" where that is shared"
            )));
        }
        if !name.is_within(&dns.zone) {
            let zone = &dns.zone;
            let why = format!("the lock's record {name} does not lie in the zone {zone}");
            return Err(LockError::Refused(why));
        }
        Ok(Self {
            provider,
            key: Key::new(name.clone(), RecordType::Txt),
            margin,
            clock: env.clock,
        })
    }

    /// The set there is, and what it says.
    async fn look(&self) -> Result<(Option<RrSet>, Word), LockError> {
        let keys = std::slice::from_ref(&self.key);
        let mut seen = self.provider.read(keys).await.map_err(refusal)?;
        let Some(set) = seen.records.remove(&self.key) else {
            return Ok((None, Word::free(0)));
        };
        let texts = set.texts();
        let word = match texts.as_slice() {
            [text] => Word::parse(text),
            _ => None,
        };
        let word = word.ok_or_else(|| {
            let key = &self.key;
            LockError::Refused(format!(
                "{key} is not what a lock writes: see that no cutover runs, then remove it"
            ))
        })?;
        Ok((Some(set), word))
    }

    fn set(&self, word: &Word) -> Result<RrSet, LockError> {
        let ttl = self.provider.capabilities().ttl.effective(0);
        let set = RrSet::parse(&self.key, ttl.into(), [word.to_string().as_str()]);
        set.map_err(|e| LockError::Refused(e.to_string()))
    }

    /// Whether `to` stands in the zone now, in the place of `from`.
    async fn swap(&self, from: Option<&RrSet>, to: &RrSet) -> Result<bool, LockError> {
        let from = records(from.cloned());
        let change = Change::new(&from, &records([to.clone()]), "pilotfish lock");
        let change = change.map_err(|e| LockError::Refused(e.to_string()))?;
        let error = match self.provider.change(&change).await {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        match &error.kind {
            Kind::Conflict { .. } => return Ok(false),
            Kind::BadCredentials | Kind::Denied | Kind::Unsupported => {
                return Err(refusal(error));
            }
            // It may stand there or not, and may even arrive later: then it is compared again. And
            // where changes of a zone stand in each other's way, somebody else may have come first.
            _ => {}
        }
        let (found, _) = self.look().await?;
        match found {
            Some(found) if found.values() == to.values() => Ok(true),
            found if found.as_ref() == from.get(&self.key) => {
                Err(LockError::Unavailable(error.to_string()))
            }
            _ => Ok(false),
        }
    }

    /// The second after: others must not see an earlier end than we do.
    fn after(&self, lease: Duration) -> Result<Timestamp, LockError> {
        let whole = Duration::from_secs(lease.as_secs().saturating_add(2));
        let lease = SignedDuration::try_from(whole).ok();
        let until = lease.and_then(|lease| self.clock.wall_now().checked_add(lease).ok());
        until.ok_or_else(|| LockError::Refused("the lease is too long".to_owned()))
    }

    fn is_over(&self, until: Timestamp) -> bool {
        let margin = SignedDuration::try_from(self.margin).unwrap_or(SignedDuration::MAX);
        let end = until.checked_add(margin);
        end.is_ok_and(|end| self.clock.wall_now() > end)
    }

    async fn try_once(&self, claim: &Claim) -> Result<Tried, LockError> {
        let (before, word) = self.look().await?;
        if word.claim.as_ref().is_some_and(|c| !self.is_over(c.until)) {
            return Err(busy(word.holder()));
        }
        let epoch = word.epoch.checked_add(1);
        let epoch = epoch.ok_or_else(|| LockError::Refused("no epoch is left".to_owned()))?;
        let nonce = nonce()?;
        let good_until = self.clock.now() + claim.lease;
        let ours = Word::claimed(epoch, claim, &nonce, self.after(claim.lease)?);
        let set = self.set(&ours)?;
        match self.swap(before.as_ref(), &set).await {
            Ok(true) => {}
            Ok(false) => return Err(self.busy().await),
            Err(error @ LockError::Unavailable(_)) => return Ok(Tried::InTheWay(error)),
            Err(error) => return Err(error),
        }
        let ticket = Ticket {
            set,
            claim: claim.clone(),
            nonce,
            good_until,
        };
        Ok(Tried::Held(Held::new(epoch, ticket)))
    }

    async fn busy(&self) -> LockError {
        match self.look().await {
            Ok((_, word)) => busy(word.holder()),
            Err(error) => error,
        }
    }
}

fn busy(holder: Option<Holder>) -> LockError {
    match holder {
        Some(holder) => LockError::Busy {
            holder: holder.owner,
            until: holder.until,
        },
        None => LockError::Busy {
            holder: "somebody who gave it back just now".to_owned(),
            until: None,
        },
    }
}

fn refusal(error: DnsError) -> LockError {
    match error.retry() {
        Retry::Never => LockError::Refused(error.to_string()),
        Retry::Later | Retry::ReadFirst => LockError::Unavailable(error.to_string()),
    }
}

fn nonce() -> Result<String, LockError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| LockError::Unavailable(e.to_string()))?;
    Ok(HEXLOWER.encode(&bytes))
}

impl Lock for DnsLock {
    fn kind(&self) -> &'static str {
        "dns"
    }

    fn acquire<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Held, LockError>> {
        Box::pin(async move {
            for attempt in 1..TRIES {
                match self.try_once(claim).await? {
                    Tried::Held(held) => return Ok(held),
                    Tried::InTheWay(_) => {
                        // Who collided at once should not do so again.
                        tokio::time::sleep(PAUSE.mul_f64(f64::from(attempt) * fastrand::f64()))
                            .await;
                    }
                }
            }
            match self.try_once(claim).await? {
                Tried::Held(held) => Ok(held),
                Tried::InTheWay(error) => Err(error),
            }
        })
    }

    fn renew<'a>(&'a self, held: &'a mut Held) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let epoch = held.epoch;
            let ticket = held.ticket::<Ticket>()?;
            let now = self.clock.now();
            let until = self.after(ticket.claim.lease)?;
            let word = Word::claimed(epoch, &ticket.claim, &ticket.nonce, until);
            let set = self.set(&word)?;
            match self.swap(Some(&ticket.set), &set).await {
                Ok(true) => {
                    ticket.set = set;
                    ticket.good_until = now + ticket.claim.lease;
                    Ok(())
                }
                Ok(false) => {
                    // An earlier renewal of ours may have arrived after we gave it up.
                    let (found, word) = self.look().await?;
                    let claim = word.claim.filter(|claim| claim.nonce == ticket.nonce);
                    let (Some(found), Some(_)) = (found, claim) else {
                        return Err(LockError::Lost);
                    };
                    ticket.set = found;
                    Err(LockError::Unavailable("the renewal came late".to_owned()))
                }
                Err(_) if self.clock.now() >= ticket.good_until => Err(LockError::Lost),
                Err(error) => Err(error),
            }
        })
    }

    fn release<'a>(&'a self, mut held: Held) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let free = self.set(&Word::free(held.epoch))?;
            let ticket = held.ticket::<Ticket>()?;
            match self.swap(Some(&ticket.set), &free).await? {
                true => Ok(()),
                false => Err(LockError::Lost),
            }
        })
    }

    fn holder<'a>(&'a self) -> BoxFuture<'a, Result<Option<Holder>, LockError>> {
        Box::pin(async move {
            let (_, word) = self.look().await?;
            let over = word.claim.as_ref().is_some_and(|c| self.is_over(c.until));
            Ok(if over { None } else { word.holder() })
        })
    }
}

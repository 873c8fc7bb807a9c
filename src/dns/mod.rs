//! DNS: the records that lead clients to a region, wherever they are kept, and the proof that they
//! are served.
//!
//! A provider is a file here and one line in [`PROVIDERS`]; `tests/dns` runs the same conformance test
//! over all of them. What they promise differs, and [`Capabilities`] says so honestly.
//!
//! - [`name`], [`record`], [`change`]: record sets that cannot be empty, and what is left of a change to do (pure)
//! - [`flow`]: read, compare, send, read back: the same for everybody
//! - [`wire`]: messages of the DNS itself
//! - [`rows`]: for providers that keep every record apart
//! - [`http`]: requests that know whether they may be sent again
//! - [`verify`]: what the authoritative servers answer, and when that is enough
//!
//! Facts about the providers are their own documentation's; each file names what it relies on.

pub mod akamai;
pub mod change;
pub mod cloudflare;
pub mod digitalocean;
pub mod error;
pub mod flow;
pub mod http;
pub mod linode;
pub mod name;
pub mod ovh;
pub mod powerdns;
pub mod record;
pub mod rfc2136;
pub mod route53;
pub mod rows;
pub mod spec;
pub mod verify;
pub mod wire;

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

pub use change::{Change, ChangeError, Clamped, Observed, SetChange, TtlRule};
pub use error::{DnsError, Kind, Retry, Side};
pub use record::{Key, Name, RecordError, RecordType, Records, RrSet};
pub use spec::{DnsSpec, Patience, ProviderKind, ProviderSpec, VerifySpec};

use crate::clock::Clock;
use crate::net::resolve::Resolver;

/// The providers there are.
pub static PROVIDERS: [&dyn Maker; 9] = [
    &rfc2136::Rfc2136,
    &powerdns::PowerDns,
    &route53::Route53,
    &cloudflare::Cloudflare,
    &linode::Linode,
    &ovh::Ovh,
    &digitalocean::DigitalOcean,
    &akamai::EdgeDns,
    &akamai::Gtm,
];

/// Makes a [`Provider`] for a zone.
pub trait Maker: Sync + 'static {
    fn kind(&self) -> ProviderKind;
    /// Opens no connection.
    ///
    /// # Errors
    /// When the settings are another kind's, or name files that cannot be used.
    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError>;
}

/// What every provider needs from the process.
#[derive(Clone)]
pub struct Env {
    pub clock: Clock,
    pub resolver: Resolver,
}

/// A call to a provider.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, DnsError>> + Send + 'a>>;

/// Where the records of a zone are kept.
///
/// Every request of a call is bounded in time by [`Patience`], and so is the call. Dropping a call closes its connection. A dropped
/// [`read`](Self::read), [`published`](Self::published) or [`check`](Self::check) has changed nothing. A
/// dropped [`change`](Self::change) is like one with an unknown outcome: read before anything else.
pub trait Provider: Send + Sync {
    fn kind(&self) -> ProviderKind;

    fn capabilities(&self) -> Capabilities;

    /// The sets of `keys` as the provider holds them, which is not what its servers answer yet.
    fn read<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Observed>;

    /// Sends what [`change::left`] found to be left, given what was `seen`. Without sets and with an
    /// explicit publish step it publishes. Only [`flow`] calls this.
    fn send<'a>(
        &'a self,
        sets: &'a [SetChange],
        seen: &'a Observed,
        note: &'a str,
    ) -> Call<'a, Receipt>;

    /// Whether the provider says that all its servers have what `receipt` is for. Many say nothing.
    fn published<'a>(&'a self, receipt: &'a Receipt) -> Call<'a, Published> {
        let _ = receipt;
        Box::pin(async { Ok(Published::NoSignal) })
    }

    /// Whether the credentials may write `keys` and publish them, without changing anything that is
    /// served.
    fn check<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Access>;

    /// Changes the sets if they are as expected. A change that is done already is a no-op; one of
    /// which a part is done is finished; anything else is refused, and nothing was changed.
    fn change<'a>(&'a self, change: &'a Change) -> Call<'a, Changed> {
        Box::pin(flow::change(self, change))
    }
}

/// Makes the provider that `spec` names.
///
/// # Errors
/// When the settings name files that cannot be used, or a zone in which nothing can be changed.
pub fn provider(spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
    let kind = spec.provider.kind();
    let maker = PROVIDERS.iter().find(|maker| maker.kind() == kind);
    maker
        .expect("every kind has a line in PROVIDERS, a test walks them")
        .make(spec, env)
}

fn wrong_settings(kind: ProviderKind) -> DnsError {
    DnsError::new(
        kind.as_str(),
        Kind::Invalid,
        "the settings of another provider",
    )
}

/// Who compares before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareAndSet {
    /// The server, in the same step as the change: two editors cannot both win.
    Server,
    /// We read just before we write: an editor in between is overwritten unnoticed.
    ReadThenWrite,
}

/// What makes a change visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishStep {
    None,
    /// A call of its own, which [`Provider::change`] makes.
    Explicit,
}

/// Whether the provider says when its servers have a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationSignal {
    /// Only the authoritative servers can be asked.
    None,
    Poll,
}

/// How a change is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// The provider keeps versions of the zone.
    Native,
    /// By the inverse change.
    Inverse,
}

/// What a provider can promise. The plan shows it to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub compare_and_set: CompareAndSet,
    /// Whether the server compares TTLs as well; else only what was read before does.
    pub compares_ttl: bool,
    /// Several record sets change together or not at all.
    pub atomic: bool,
    pub publish: PublishStep,
    pub signal: PropagationSignal,
    pub ttl: TtlRule,
    /// Records may be answered by the provider's proxy, see [`Observed::proxied`].
    pub proxied_mode: bool,
    pub undo: Undo,
}

impl Capabilities {
    /// The same for people, one promise or warning a line.
    pub fn promises(&self) -> Vec<String> {
        let compares = match (self.compare_and_set, self.compares_ttl) {
            (CompareAndSet::Server, true) => "the server compares before it changes",
            (CompareAndSet::Server, false) => {
                "the server compares values before it changes; TTLs are compared by us just before"
            }
            (CompareAndSet::ReadThenWrite, _) => {
                "we compare just before we change: an edit in between is overwritten unnoticed"
            }
        };
        let together = match self.atomic {
            true => "all records change together or not at all",
            false => "records change one after the other: for a moment some are new and some old",
        };
        let signal = match self.signal {
            PropagationSignal::Poll => "the provider says when its servers have the change",
            PropagationSignal::None => "only the name servers themselves know when they have it",
        };
        let mut lines = vec![compares.to_owned(), together.to_owned()];
        if self.publish == PublishStep::Explicit {
            lines.push("changes are seen by nobody before they are published".to_owned());
        }
        lines.push(signal.to_owned());
        if self.ttl.silent {
            lines.push(format!(
                "a TTL below {} s, or between the ones there are, is stored as another one",
                self.ttl.min
            ));
        }
        if self.proxied_mode {
            lines.push("where records are proxied, only the proxy's answers change".to_owned());
        }
        lines
    }
}

/// What a change leaves for [`Provider::published`]. It may be kept in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The provider's own name for the change, where it has one.
    pub token: Option<String>,
}

/// What a provider says about the spreading of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// It never says; or it does, but not about this change.
    NoSignal,
    /// Not everywhere yet, in the provider's own words.
    Pending(String),
    Done,
}

/// How a right was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The provider was asked for this very thing, and would have done it.
    Proven,
    /// As far as it can be seen without doing it; the text says what was seen.
    Likely(String),
}

/// What the credentials may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub write: Proof,
    pub publish: Proof,
}

impl Access {
    /// For providers without a publish step: what is written is published.
    pub fn both(proof: Proof) -> Self {
        Self {
            write: proof.clone(),
            publish: proof,
        }
    }
}

/// How a change came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    AlreadyDone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub outcome: Outcome,
    /// As read back from the provider afterwards.
    pub observed: Observed,
    /// TTLs that were stored differently.
    pub clamped: Vec<Clamped>,
    pub receipt: Receipt,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_promised_is_said() {
        let weakest = Capabilities {
            compare_and_set: CompareAndSet::ReadThenWrite,
            compares_ttl: false,
            atomic: false,
            publish: PublishStep::Explicit,
            signal: PropagationSignal::None,
            ttl: TtlRule {
                min: 60,
                values: &[],
                silent: true,
            },
            proxied_mode: true,
            undo: Undo::Inverse,
        };
        let said = weakest.promises().join("\n");
        for word in [
            "overwritten unnoticed",
            "one after",
            "published",
            "60 s",
            "proxied",
        ] {
            assert!(said.contains(word), "{said}");
        }
        let strongest = Capabilities {
            compare_and_set: CompareAndSet::Server,
            compares_ttl: true,
            atomic: true,
            publish: PublishStep::None,
            signal: PropagationSignal::Poll,
            ttl: TtlRule::ANY,
            proxied_mode: false,
            ..weakest
        };
        assert_eq!(strongest.promises().len(), 3);
    }

    #[test]
    fn every_kind_has_one_provider() {
        for kind in ProviderKind::ALL {
            let found = PROVIDERS.iter().filter(|maker| maker.kind() == kind);
            assert_eq!(found.count(), 1, "{}", kind.as_str());
        }
    }
}

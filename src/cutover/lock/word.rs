//! What a lock's TXT record says (pure): `v=1;epoch=7;until=1700000000;nonce=…;plan=…;owner=…;purpose=…`.
//!
//! A free lock keeps its epoch and has no owner.

use jiff::Timestamp;

use super::{Claim, Holder};

/// A TXT string has 255 bytes; these leave room for the numbers.
const OWNER: usize = 48;
const PURPOSE: usize = 40;
const PLAN: usize = 24;

/// One state of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub epoch: u64,
    /// `None`: free.
    pub claim: Option<Claimed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub until: Timestamp,
    /// Tells two claims of the same owner apart.
    pub nonce: String,
    pub owner: String,
    pub purpose: String,
    pub plan: String,
}

/// Only what every provider keeps as it is, and nothing that divides.
fn plain(text: &str, most: usize) -> String {
    let fine = |c: char| match c {
        c if c.is_ascii_alphanumeric() || " -_.,:/@+".contains(c) => c,
        _ => '_',
    };
    text.chars().take(most).map(fine).collect()
}

impl Word {
    pub fn free(epoch: u64) -> Self {
        Self { epoch, claim: None }
    }

    pub fn claimed(epoch: u64, claim: &Claim, nonce: &str, until: Timestamp) -> Self {
        let claim = Claimed {
            until,
            nonce: nonce.to_owned(),
            owner: plain(&claim.owner, OWNER),
            purpose: plain(&claim.purpose, PURPOSE),
            plan: plain(&claim.plan, PLAN),
        };
        Self {
            epoch,
            claim: Some(claim),
        }
    }

    /// `None`: this is no word of a lock.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("v=1;epoch=")?;
        let (epoch, rest) = rest.split_once(";until=")?;
        let (until, rest) = rest.split_once(";nonce=")?;
        let (nonce, rest) = rest.split_once(";plan=")?;
        let (plan, rest) = rest.split_once(";owner=")?;
        let (owner, purpose) = rest.split_once(";purpose=")?;
        if purpose.contains(';') {
            return None;
        }
        let epoch = epoch.parse().ok()?;
        if owner.is_empty() && nonce.is_empty() {
            return Some(Self::free(epoch));
        }
        let claim = Claimed {
            until: Timestamp::from_second(until.parse().ok()?).ok()?,
            nonce: nonce.to_owned(),
            owner: owner.to_owned(),
            purpose: purpose.to_owned(),
            plan: plan.to_owned(),
        };
        Some(Self {
            epoch,
            claim: Some(claim),
        })
    }

    pub fn holder(self) -> Option<Holder> {
        let claim = self.claim?;
        Some(Holder {
            owner: claim.owner,
            purpose: claim.purpose,
            plan: claim.plan,
            epoch: self.epoch,
            until: Some(claim.until),
        })
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let epoch = self.epoch;
        match &self.claim {
            None => write!(
                f,
                "v=1;epoch={epoch};until=0;nonce=;plan=;owner=;purpose=free"
            ),
            Some(claim) => {
                let Claimed {
                    until,
                    nonce,
                    owner,
                    purpose,
                    plan,
                } = claim;
                let until = until.as_second();
                write!(
                    f,
                    "v=1;epoch={epoch};until={until};nonce={nonce};plan={plan};owner={owner};purpose={purpose}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_word_is_read_as_it_was_written() {
        let claim = Claim {
            owner: "app-01;epoch=9 \"é\"".to_owned() + &"x".repeat(300),
            purpose: "cutover to rbx".to_owned() + &"y".repeat(300),
            plan: "0123456789abcdef".repeat(4),
            lease: Duration::from_secs(60),
        };
        let until = Timestamp::from_second(1_800_000_000).unwrap();
        let nonce = "f".repeat(32);
        for word in [
            Word::claimed(u64::MAX, &claim, &nonce, until),
            Word::free(7),
        ] {
            let text = word.to_string();
            assert!(text.len() <= 255, "{}", text.len());
            assert!(text.parse::<crate::dns::record::Text>().is_ok(), "{text}");
            assert_eq!(Word::parse(&text), Some(word));
        }
        let whole = Word::claimed(3, &claim, &nonce, until).to_string();
        for half in 0..whole.rfind(";purpose=").unwrap() {
            assert_eq!(Word::parse(&whole[..half]), None);
        }
        for bad in [
            "",
            "v=spf1 -all",
            "v=1;epoch=-1;until=0;nonce=;plan=;owner=;purpose=",
        ] {
            assert_eq!(Word::parse(bad), None);
        }
        let far = "v=1;epoch=1;until=999999999999999;nonce=a;plan=;owner=b;purpose=";
        assert_eq!(Word::parse(far), None);
    }
}

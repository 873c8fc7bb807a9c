//! Gates: what must be true before a site is moved. Facts are gathered by [`gather`]; what they mean is
//! decided in [`judge`], which is pure.

pub mod check;
pub mod gather;
pub mod judge;

use serde::{Deserialize, Serialize};

/// The built-in gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    TargetCheck,
    TargetData,
    OldRegionFenced,
    RecordsExpected,
    TtlCeiling,
    NegativeTtl,
    NameServers,
    Credentials,
    Lock,
    Cooldown,
    OneRegionOn,
}

impl Name {
    pub const ALL: [Self; 11] = [
        Self::TargetCheck,
        Self::TargetData,
        Self::OldRegionFenced,
        Self::RecordsExpected,
        Self::TtlCeiling,
        Self::NegativeTtl,
        Self::NameServers,
        Self::Credentials,
        Self::Lock,
        Self::Cooldown,
        Self::OneRegionOn,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TargetCheck => "target-check",
            Self::TargetData => "target-data",
            Self::OldRegionFenced => "old-region-fenced",
            Self::RecordsExpected => "records-expected",
            Self::TtlCeiling => "ttl-ceiling",
            Self::NegativeTtl => "negative-ttl",
            Self::NameServers => "name-servers",
            Self::Credentials => "credentials",
            Self::Lock => "lock",
            Self::Cooldown => "cooldown",
            Self::OneRegionOn => "one-region-on",
        }
    }

    /// What nobody may overrule: a change on top of somebody else's, and a site that leads nowhere.
    pub const fn is_absolute(self) -> bool {
        matches!(self, Self::RecordsExpected | Self::OneRegionOn)
    }
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Says {
    Pass,
    Warn,
    Fail,
}

impl Says {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// A gate, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub gate: String,
    pub says: Says,
    pub why: String,
    /// It failed, and an operator goes on all the same.
    #[serde(default)]
    pub overridden: bool,
}

impl Verdict {
    pub fn of(gate: Name, says: Says, why: impl Into<String>) -> Self {
        Self::named(gate.as_str(), says, why)
    }

    pub fn named(gate: &str, says: Says, why: impl Into<String>) -> Self {
        Self {
            gate: gate.to_owned(),
            says,
            why: why.into(),
            overridden: false,
        }
    }

    /// Whether it stands in the way.
    pub fn stops(&self) -> bool {
        self.says == Says::Fail && !self.overridden
    }
}

/// Why an override is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    #[error("there is no gate `{0}`: there is {1}")]
    Unknown(String, String),
    #[error("the gate `{0}` cannot be overridden")]
    Absolute(String),
    #[error("an override needs a reason: --reason \"...\"")]
    NoReason,
}

/// Whether these gates may be overridden, for this reason.
///
/// # Errors
/// When one is not known or may never be, or nobody says why.
pub fn check_overrides(
    overrides: &[String],
    reason: Option<&str>,
    own: &[String],
) -> Result<(), OverrideError> {
    for name in overrides {
        let built_in = Name::ALL.into_iter().find(|gate| gate.as_str() == name);
        match built_in {
            Some(gate) if gate.is_absolute() => {
                return Err(OverrideError::Absolute(name.clone()));
            }
            None if !own.contains(name) => {
                let known = Name::ALL.iter().map(|gate| gate.as_str());
                let known: Vec<&str> = known.chain(own.iter().map(String::as_str)).collect();
                return Err(OverrideError::Unknown(name.clone(), known.join(", ")));
            }
            _ => {}
        }
    }
    match reason.map(str::trim) {
        None | Some("") if !overrides.is_empty() => Err(OverrideError::NoReason),
        _ => Ok(()),
    }
}

/// Marks those that an operator overrules.
pub fn overrule(verdicts: &mut [Verdict], overrides: &[String]) {
    for verdict in verdicts {
        let absolute = Name::ALL
            .into_iter()
            .any(|gate| gate.as_str() == verdict.gate && gate.is_absolute());
        let asked = overrides.contains(&verdict.gate);
        verdict.overridden = asked && !absolute && verdict.says == Says::Fail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_gates_are_absolute_and_an_override_says_why() {
        let own = ["backup".to_owned()];
        let check = |names: &[&str], reason| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            check_overrides(&names, reason, &own)
        };
        assert_eq!(check(&[], None), Ok(()));
        assert_eq!(check(&["cooldown", "backup"], Some("fire")), Ok(()));
        assert_eq!(check(&["cooldown"], None), Err(OverrideError::NoReason));
        assert_eq!(
            check(&["cooldown"], Some(" ")),
            Err(OverrideError::NoReason)
        );
        assert!(matches!(
            check(&["cool"], Some("x")),
            Err(OverrideError::Unknown(..))
        ));
        for gate in Name::ALL {
            let refused = check(&[gate.as_str()], Some("fire")).is_err();
            assert_eq!(refused, gate.is_absolute(), "{}", gate.as_str());
            let mut verdicts = [Verdict::of(gate, Says::Fail, "")];
            overrule(&mut verdicts, &[gate.as_str().to_owned()]);
            assert_eq!(verdicts[0].stops(), gate.is_absolute());
        }
        let mut warned = [Verdict::of(Name::Cooldown, Says::Warn, "")];
        overrule(&mut warned, &["cooldown".to_owned()]);
        assert!(!warned[0].overridden && !warned[0].stops());
    }
}

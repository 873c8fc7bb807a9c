//! Real name servers, and stand-ins for the DNS providers that have no emulator.
//!
//! - [`bind`], [`knot`], [`powerdns`]: Debian's servers, with a zone and a key that may change one name
//! - [`moto`]: Route 53 as PyPI plays it; [`fake`]: stand-ins for the others
//! - [`unbound`]: a resolver, hostile where a test wants it so
//! - [`faults`]: a relay that plays what goes wrong before any of them; [`http`]: what stand-ins are made of
//! - [`query`]: a small blocking DNS client, to see what is served without asking the code under test;
//!   [`watch`] asks without a break
//! - [`site`]: all of them together, for a site in two regions

pub mod bind;
pub mod fake;
pub mod faults;
pub mod http;
pub mod knot;
pub mod moto;
pub mod powerdns;
pub mod query;
pub mod site;
pub mod unbound;
pub mod watch;

use std::fmt::Write as _;

/// The zone of every server here.
pub const ZONE: &str = "example.com";
/// The name whose addresses the key may change.
pub const NAME: &str = "shop.example.com";
/// Where it may leave word for others.
pub const NOTE: &str = "_cutover.shop.example.com";
/// HMAC-SHA256, and what tests look for where it must not be.
pub const KEY_NAME: &str = "cutover";
pub const KEY: &str = "c2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWUtMDEyMzQ=";

/// A zone file with a SOA that makes secondaries quick, two name servers on loopback, and `lines`.
pub fn zone_file(lines: &[&str]) -> String {
    let mut text = format!(
        "$ORIGIN {ZONE}.\n$TTL 300\n\
         @ SOA ns1 hostmaster 1 2 1 3600 5\n\
         @ NS ns1\n@ NS ns2\nns1 A 127.0.0.1\nns2 A 127.0.0.1\n"
    );
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

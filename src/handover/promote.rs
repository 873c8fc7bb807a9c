//! A primary for a service whose former one is dead or fenced: what a regional cutover needs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::account::Account;
use super::run::{HINT, Handovers, Subject, ended};
use super::{Ask, BoxFuture, Old};
use crate::addr::Addr;
use crate::events::By;

impl Handovers {
    /// Makes `to`, or whoever has most, the primary, and waits until the monitor has proven it. What is
    /// primary already is done. The account says how it ended; it is refused when the former primary
    /// still answers as one when `within` is over. Dropping the future cancels it, and puts everything
    /// back.
    pub fn promote(
        self: &Arc<Self>,
        subject: Subject,
        to: Option<Addr>,
        within: Duration,
        by: By,
    ) -> BoxFuture<'static, Account> {
        let desk = self.clone();
        Box::pin(async move {
            let begun = desk.clock.now();
            // The fence is a moment old: what the monitor has proven may be older. Who is still there
            // in the end is refused by name.
            let _ = timeout(within, gone(&subject, to.as_ref())).await;
            let left = within.saturating_sub(desk.clock.now().since(begun));
            let ask = Ask {
                to,
                timeout: left.max(HINT),
                dry_run: false,
                old: Old::Gone,
            };
            let service = subject.service.clone();
            if let Some(now) = subject.topology.load().primary_addr().cloned()
                && is_it(&now, ask.to.as_ref())
            {
                return Account::already(&service, &now);
            }
            let told = match desk.begin(subject, ask.clone(), by) {
                Ok(begun) => begun.account().await,
                Err(account) => Some(*account),
            };
            told.unwrap_or_else(|| ended(&service, &ask))
        })
    }
}

fn is_it(now: &Addr, to: Option<&Addr>) -> bool {
    to.is_none_or(|to| to == now)
}

/// Until nobody is proven as primary but `to`. Cancel safe.
async fn gone(subject: &Subject, to: Option<&Addr>) {
    loop {
        let rung = subject.signal.rung();
        match subject.topology.load().primary_addr() {
            Some(now) if !is_it(now, to) => subject.hints.ask(now),
            _ => return,
        }
        tokio::select! {
            () = rung => {}
            () = sleep(HINT) => {}
        }
    }
}

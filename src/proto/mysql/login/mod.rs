//! The login, packet by packet: greeting, TLS to the server, response, passwords, up to the final OK.
//!
//! Each side has its own sequence ids, so that a packet more on one of them does not confuse the other.

mod exchange;
pub mod hello;
pub mod keys;
pub mod lane;

use std::future::pending;

use tokio::io::AsyncReadExt;

use self::exchange::{Exchange, Paths, Step};
use self::hello::{Greeting, Response};
pub use self::keys::Keys;
use self::lane::{Lane, Missing, Payload};
use super::knock::be_refused;
use super::packet::ServerError;
use super::packet::{Words, cap, errno, ok_status, printable};
use super::tracker::{MysqlTracker, Start};
use crate::net::tls::{Connector, TlsMode};
use crate::proto::login::{Ends, LoggedIn, LoginError};
use crate::proto::spec::InFlight;
use crate::proto::track::Opaque;

/// More packets than any way to prove who one is takes.
const ROUNDS: usize = 64;

/// What all logins of a service share.
pub struct Shared {
    pub tls_mode: TlsMode,
    pub connector: Connector,
    pub keys: Keys,
    pub in_flight: InFlight,
    /// How long a server may take to greet.
    pub greeting_within: std::time::Duration,
}

/// Logs in. Not cancel safe: both connections are at whatever was said last.
///
/// # Errors
/// See [`LoginError`].
pub async fn run(shared: &Shared, ends: &mut Ends<'_>) -> Result<LoggedIn, LoginError> {
    Login {
        shared,
        ends,
        client: Lane::new(),
        server: Lane::new(),
    }
    .run()
    .await
}

struct Login<'a, 'e> {
    shared: &'a Shared,
    ends: &'a mut Ends<'e>,
    client: Lane,
    server: Lane,
}

/// Who says the next packet.
enum Said {
    Server(Payload),
    Client(Payload),
}

fn server_missing(missing: Missing) -> LoginError {
    match missing {
        Missing::Gone(None) => LoginError::Server("it hung up during the login".to_owned()),
        Missing::Gone(Some(error)) => LoginError::Server(error.to_string()),
        Missing::Nonsense(what) => LoginError::ServerNonsense(what),
    }
}

fn client_missing(missing: Missing) -> LoginError {
    match missing {
        Missing::Gone(_) => LoginError::ClientLeft,
        Missing::Nonsense(what) => LoginError::ClientNonsense(what),
    }
}

impl Login<'_, '_> {
    async fn run(mut self) -> Result<LoggedIn, LoginError> {
        let greeting = self.greet().await?;
        let (mut payload, response) = self.response().await?;
        let caps = greeting.caps & response.caps;
        let answer = self.after_response(&greeting, &response, &mut payload);
        match answer.await {
            Ok(status) => Ok(self.done(caps, status)),
            Err(error) => {
                self.explain(&error, caps).await;
                Err(error)
            }
        }
    }

    /// Hands the server's greeting on.
    async fn greet(&mut self) -> Result<Greeting, LoginError> {
        let mut payload = self.greeting().await?;
        if let Some(error) = ServerError::read(&payload) {
            return Err(self.refused_at_the_door(&payload, &error).await);
        }
        let greeting = Greeting::read(&payload).map_err(LoginError::ServerNonsense)?;
        if self.wants_tls() {
            if greeting.caps & cap::SSL == 0 {
                be_refused(&mut self.server, &mut self.ends.server).await;
                let why = "it offers no TLS, and [service.tls] wants it".to_owned();
                return Err(LoginError::Server(why));
            }
            if !self.server.is_empty() {
                let why = "it said more than its greeting".to_owned();
                return Err(LoginError::ServerNonsense(why));
            }
            greeting.hide_tls(&mut payload);
        }
        self.tell_client(&payload).await?;
        Ok(greeting)
    }

    fn wants_tls(&self) -> bool {
        self.shared.tls_mode != TlsMode::Off
    }

    /// Waits for the greeting, and notices when the client leaves or speaks instead of listening.
    async fn greeting(&mut self) -> Result<Payload, LoginError> {
        let mut early = [0; 64];
        tokio::select! {
            biased;
            greeting = self.server.read(&mut self.ends.server) => {
                greeting.map_err(server_missing)
            }
            read = self.ends.client.read(&mut early) => match read {
                Ok(n) if n > 0 => Err(LoginError::ClientNonsense(format!(
                    "it speaks before it is greeted: \"{}\"", printable(&early[..n])
                ))),
                _ => Err(LoginError::ClientLeft),
            },
            () = tokio::time::sleep(self.shared.greeting_within) => {
                Err(LoginError::Server("it accepted, and did not greet".to_owned()))
            }
        }
    }

    /// An error in place of the greeting. One that says that this server does not serve now is ours to
    /// deal with, all others are the client's to hear.
    async fn refused_at_the_door(&mut self, payload: &[u8], error: &ServerError) -> LoginError {
        /// ER_NORMAL_SHUTDOWN, ER_SHUTDOWN_COMPLETE, ER_CONNECTION_KILLED, and what clients say
        /// themselves when a server is gone.
        const GONE: [u16; 5] = [1077, 1079, 1927, 2006, 2013];
        let unfit = errno::is_hint(error.code)
            || GONE.contains(&error.code)
            || error.text.contains("WSREP");
        if unfit {
            return LoginError::Server(error.to_string());
        }
        match self.tell_client(payload).await {
            Ok(()) => LoginError::Refused(error.to_string()),
            Err(error) => error,
        }
    }

    async fn response(&mut self) -> Result<(Payload, Response), LoginError> {
        let read = self.client.read(&mut self.ends.client).await;
        let nonsense = match read {
            Ok(payload) => match Response::read(&payload) {
                Some(response) => return Ok((payload, response)),
                None => LoginError::ClientNonsense("no response to the greeting".to_owned()),
            },
            Err(missing) => client_missing(missing),
        };
        self.explain(&nonsense, cap::PROTOCOL_41).await;
        be_refused(&mut self.server, &mut self.ends.server).await;
        Err(nonsense)
    }

    /// From the client's response to the OK: its status flags. `None`: what follows cannot be read.
    async fn after_response(
        &mut self,
        greeting: &Greeting,
        response: &Response,
        payload: &mut Payload,
    ) -> Result<Result<u16, Opaque>, LoginError> {
        if self.wants_tls() {
            if response.wants_tls {
                let why = "it begins TLS, which it was not offered".to_owned();
                return Err(LoginError::ClientNonsense(why));
            }
            if response.caps & cap::PROTOCOL_41 == 0 {
                let why = "a response of before protocol 4.1".to_owned();
                return Err(LoginError::ClientNonsense(why));
            }
            self.start_tls(payload).await?;
        }
        self.tell_server(payload).await?;
        if response.wants_tls {
            return Ok(Err(Opaque::Encrypted));
        }
        if greeting.caps & response.caps & cap::PROTOCOL_41 == 0 {
            return Ok(Err(Opaque::Unknown));
        }
        let paths = Paths {
            unix_client: self.ends.client.is_unix(),
            tls_server: self.wants_tls(),
        };
        let exchange = Exchange::new(paths, &response.plugin, greeting.nonce.clone());
        self.prove(exchange).await.map(Ok)
    }

    async fn start_tls(&mut self, payload: &mut Payload) -> Result<(), LoginError> {
        let short = || LoginError::ClientNonsense("no response to the greeting".to_owned());
        let request = hello::announce_tls(payload).ok_or_else(short)?;
        self.tell_server(&request).await?;
        let (connector, endpoint) = (&self.shared.connector, &self.ends.endpoint);
        let started = self.ends.server.start_tls(connector, endpoint).await;
        started.map_err(|error| LoginError::Server(format!("{NO_TLS}: {error}")))
    }

    /// Passes packets both ways until the server has decided.
    async fn prove(&mut self, mut exchange: Exchange) -> Result<u16, LoginError> {
        let mut client_may = true;
        for _ in 0..ROUNDS {
            match self.next(client_may).await? {
                Said::Server(payload) => {
                    client_may = self.pass_down(&payload, &mut exchange).await?;
                    if payload[..].first() == Some(&0) {
                        let nonsense = || LoginError::ServerNonsense("a broken OK".to_owned());
                        return ok_status(&payload).ok_or_else(nonsense);
                    }
                }
                Said::Client(payload) => self.pass_up(payload, &mut exchange).await?,
            }
        }
        Err(LoginError::ServerNonsense(
            "a login without an end".to_owned(),
        ))
    }

    /// The next packet of either side. A client that is not waited for may have sent its first request
    /// already: that is for later.
    async fn next(&mut self, client_may: bool) -> Result<Said, LoginError> {
        let (lane, end) = (&mut self.client, &mut self.ends.client);
        let due = lane.next();
        let client = async {
            if !client_may {
                return pending().await;
            }
            if due != 0 && lane.peek(end).await? == 0 {
                return pending().await;
            }
            lane.read(end).await
        };
        tokio::select! {
            biased;
            said = self.server.read(&mut self.ends.server) => {
                said.map(Said::Server).map_err(server_missing)
            }
            said = client => said.map(Said::Client).map_err(client_missing),
        }
    }

    /// `true`: the client may answer.
    async fn pass_down(
        &mut self,
        payload: &Payload,
        exchange: &mut Exchange,
    ) -> Result<bool, LoginError> {
        self.tell_client(payload).await?;
        match &payload[..] {
            [0xff, ..] => {
                let Some(error) = ServerError::read(payload) else {
                    return Err(LoginError::ServerNonsense("a broken error".to_owned()));
                };
                Err(match errno::is_hint(error.code) {
                    true => LoginError::Server(error.to_string()),
                    false => LoginError::Refused(error.to_string()),
                })
            }
            [0, ..] => Ok(false),
            [0xfe, request @ ..] => {
                exchange.switch(request);
                Ok(true)
            }
            [1, data @ ..] => Ok(!exchange.more(data)),
            // Some plugin's own.
            _ => Ok(true),
        }
    }

    async fn pass_up(
        &mut self,
        payload: Payload,
        exchange: &mut Exchange,
    ) -> Result<(), LoginError> {
        match exchange.client(&payload) {
            Step::Forward => self.tell_server(&payload).await,
            Step::GiveKey => {
                let pem = self.shared.keys.public_pem().await;
                let pem = pem.map_err(LoginError::Server)?;
                self.tell_client(&[&[1], pem.as_bytes()].concat()).await
            }
            Step::Open => {
                let opened = self.shared.keys.open(payload, exchange.nonce().to_vec());
                let opened = opened.await.map_err(LoginError::ClientNonsense)?;
                self.tell_server(&opened).await
            }
            Step::Seal { ask } => {
                self.tell_server(&[ask]).await?;
                let key = self.server.read(&mut self.ends.server).await;
                let key = key.map_err(server_missing)?;
                let [1, pem @ ..] = &key[..] else {
                    if key.first() == Some(&0xff) {
                        self.pass_down(&key, exchange).await?;
                    }
                    let why = "it has no key to encrypt a password with".to_owned();
                    return Err(LoginError::ServerNonsense(why));
                };
                let sealed = keys::seal(&payload, exchange.nonce(), pem);
                let sealed = sealed.map_err(LoginError::ServerNonsense)?;
                self.tell_server(&sealed).await
            }
            Step::Impossible => Err(LoginError::ClientNonsense(
                "a password that only the server could read; it must ask for the key".to_owned(),
            )),
        }
    }

    async fn tell_client(&mut self, payload: &[u8]) -> Result<(), LoginError> {
        let written = self.client.write(&mut self.ends.client, payload).await;
        written.map_err(|_| LoginError::ClientLeft)
    }

    async fn tell_server(&mut self, payload: &[u8]) -> Result<(), LoginError> {
        let written = self.server.write(&mut self.ends.server, payload).await;
        written.map_err(|error| LoginError::Server(error.to_string()))
    }

    /// Says in our words what no server will say now. A client whose server is gone hears the end.
    async fn explain(&mut self, error: &LoginError, caps: u64) {
        let words = |code, state, text| Words {
            code,
            state: (caps & cap::PROTOCOL_41 != 0).then_some(state),
            text,
        };
        let words = match error {
            LoginError::ClientNonsense(_) => {
                words(errno::HANDSHAKE, "08S01", "Pilotfish: bad handshake")
            }
            LoginError::Server(why) if why.starts_with(NO_TLS) => words(2026, "HY000", why),
            _ => return,
        };
        // Who does not listen need not be told.
        let _ = self
            .tell_client(&words.packet(0)[super::packet::HEADER..])
            .await;
    }

    fn done(self, caps: u64, status: Result<u16, Opaque>) -> LoggedIn {
        let start = match status {
            Ok(_) if caps & (cap::COMPRESS | cap::ZSTD) != 0 => Start::Opaque(Opaque::Compressed),
            Ok(status) => Start::Readable { caps, status },
            Err(why) => Start::Opaque(why),
        };
        LoggedIn {
            tracker: Box::new(MysqlTracker::new(start, self.shared.in_flight)),
            early_up: self.client.rest(),
            early_down: self.server.rest(),
        }
    }
}

const NO_TLS: &str = "TLS to the server failed";

/// An error in place of the greeting, in our words.
pub fn refusal(text: &str) -> bytes::Bytes {
    let words = Words {
        code: errno::CON_COUNT,
        state: None,
        text,
    };
    words.packet(0)
}

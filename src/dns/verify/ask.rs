//! One question to one server: by UDP as resolvers ask, by TCP when the answer does not fit.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use hickory_net::NetError;
use hickory_net::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query};
use hickory_net::proto::rr::{Name as WireName, RecordType as WireType};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::{DnsHandle, DnsRequestSender};

use crate::addr::Addr;
use crate::dns::wire::ask_tcp;
use crate::net::dial::Dialer;

/// So much fits without fragments (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// Further tries by UDP, within the limit of the question.
const RETRIES: u8 = 3;

/// Asks one server.
#[derive(Clone)]
pub struct Asker {
    pub server: SocketAddr,
    pub limit: Duration,
    pub dialer: Dialer,
}

impl Asker {
    /// With recursion when the server is a resolver. Cancel safe.
    ///
    /// # Errors
    /// When there was no answer in time, or it could not be read.
    pub async fn ask(
        &self,
        name: WireName,
        rtype: WireType,
        recurse: bool,
    ) -> Result<DnsResponse, NetError> {
        let mut options = DnsRequestOptions::default();
        options.edns_payload_len = PAYLOAD;
        options.recursion_desired = recurse;
        options.retry_interval = self.limit / u32::from(RETRIES + 1);
        let request = DnsRequest::from_query(Query::query(name, rtype), options);
        self.exchange(request).await
    }

    async fn exchange(&self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let bytes = request.to_vec()?;
        let mut udp = UdpClientStream::builder(self.server, TokioRuntimeProvider::default())
            .with_timeout(Some(self.limit))
            .with_max_retries(RETRIES)
            .with_os_port_selection(true)
            .build();
        let answer = udp.send_message(request).next().await;
        let answer = answer.unwrap_or(Err(NetError::Timeout))?;
        if !answer.truncation {
            return Ok(answer);
        }
        let bytes = ask_tcp(&self.dialer, &Addr::Ip(self.server), &bytes, self.limit).await;
        let bytes = bytes.map_err(|error| NetError::from(error.to_string()))?;
        Ok(DnsResponse::from_buffer(bytes)?)
    }
}

/// For hickory's validator, which asks for keys and delegations by itself.
impl DnsHandle for Asker {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, mut request: DnsRequest) -> Self::Response {
        let me = self.clone();
        // Whether the chain holds is ours to find out, also behind a resolver that finds it does not.
        request.metadata.checking_disabled = true;
        Box::pin(stream::once(async move { me.exchange(request).await }))
    }
}

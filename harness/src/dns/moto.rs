//! Route 53 as PyPI's `moto` plays it: it knows the shape of the documents, and checks signatures with
//! Amazon's own code, though rightly only those of a POST (a GET of boto3 itself is refused). It compares a DELETE with what was ever created instead of what is there, and is
//! always in sync; so nothing about races is proven with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::ZONE;
use crate::process::{Launch, Server};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(60);

/// Makes a zone, a user who may change it and two records, and prints id and secret of his key.
const SET_UP: &str = r#"
import sys, json, boto3
url, zone = sys.argv[1:3]
args = dict(endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
dns, iam = boto3.client("route53", **args), boto3.client("iam", **args)
made = dns.create_hosted_zone(Name=zone, CallerReference="1")["HostedZone"]["Id"]
def record(rtype, value):
    return {"Action": "CREATE", "ResourceRecordSet": {"Name": "shop." + zone + ".", "Type": rtype, "TTL": 300,
            "ResourceRecords": [{"Value": value}]}}
dns.change_resource_record_sets(HostedZoneId=made, ChangeBatch={"Changes": [
    record("A", "192.0.2.10"), record("AAAA", "2001:db8::10")]})
iam.create_user(UserName="cutover")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "route53:*", "Resource": "*"}]}
iam.put_user_policy(UserName="cutover", PolicyName="dns", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="cutover")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])
"#;

pub struct Moto {
    pub addr: SocketAddr,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub server: Server,
    _dir: scratch::Dir,
}

impl Moto {
    /// With [`ZONE`] and the records of region 10, believing everybody.
    pub fn start() -> Result<Self> {
        let bin = place()?;
        let dir = scratch::Dir::new()?;
        let addr = ports::free()?;
        let mut launch = Launch::new("moto_server", &bin.join("moto_server"), &dir.join("log"))?;
        launch
            .command()
            .args(["-H", "127.0.0.1", "-p", &addr.port().to_string()])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "1000");
        let server = launch.start()?;
        wait::until_true("moto_server to answer", START, || {
            server.check_running()?;
            Ok(TcpStream::connect(addr).is_ok())
        })?;
        let set_up = Command::new(bin.join("python"))
            .args(["-c", SET_UP, &format!("http://{addr}"), ZONE])
            .output()
            .context("starting python")?;
        if !set_up.status.success() {
            bail!("moto: {}", String::from_utf8_lossy(&set_up.stderr));
        }
        let said = String::from_utf8(set_up.stdout)?;
        let (id, secret) = said.trim().split_once(' ').context("no key")?;
        Ok(Self {
            addr,
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            server,
            _dir: dir,
        })
    }
}

/// Whether `moto` looks at signatures from now on.
pub fn demand_signatures(moto: SocketAddr, demand: bool) -> Result<()> {
    // So many requests are believed first.
    let free = if demand { "0" } else { "1000" };
    let request = format!(
        "POST /moto-api/reset-auth HTTP/1.1\r\nhost: {moto}\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{free}",
        free.len()
    );
    let mut stream = TcpStream::connect(moto)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("moto: {answer}");
    }
    Ok(())
}

fn place() -> Result<PathBuf> {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/moto/bin");
    if !bin.join("moto_server").is_file() {
        bail!("moto is not installed: run scripts/install-moto");
    }
    Ok(bin)
}

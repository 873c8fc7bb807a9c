//! stub
pub mod addr;
pub mod admin;
pub mod cli {
    pub mod status;
    mod table;
}
pub mod clock;
pub mod data;
pub mod drain;
pub mod gate;
pub mod monitor;
pub mod net;
pub mod proto;
pub mod secret;
pub mod signal;
pub mod supervise;
pub mod telemetry;
pub mod topology;

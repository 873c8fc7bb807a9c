//! Metric handles and their text form. No global recorder: whoever counts gets a handle.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// Seconds. Fine where a local hop lives, coarse where a failover does.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// How often histograms fold their raw samples, scraped or not; they would grow without it.
pub const UPKEEP: Duration = Duration::from_secs(5);

const METADATA: Metadata<'static> = Metadata::new("pilotfish", Level::INFO, None);

/// Makes handles, and renders all of them.
#[derive(Clone)]
pub struct Registry {
    tallies: Arc<Mutex<Vec<Tallied>>>,
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Registry {
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        Self {
            tallies: Arc::default(),
            recorder: Arc::new(recorder),
            handle,
        }
    }

    fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
        let labels: Vec<Label> = labels
            .iter()
            .map(|&(k, v)| Label::new(k, v.to_owned()))
            .collect();
        Key::from_parts(name, labels)
    }

    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder
            .register_counter(&Self::key(name, labels), &METADATA)
    }

    /// The part of a counter that thread `thread` adds to. All that have the same name and labels are
    /// one counter.
    pub fn tally(
        &self,
        name: &'static str,
        labels: &[(&'static str, &str)],
        thread: usize,
    ) -> Arc<Tally> {
        let key = Self::key(name, labels);
        let mut all = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|tallied| tallied.key == key);
        let at = at.unwrap_or_else(|| {
            all.push(Tallied {
                counter: self.recorder.register_counter(&key, &METADATA),
                key,
                parts: Vec::new(),
            });
            all.len() - 1
        });
        let parts = &mut all[at].parts;
        if parts.len() <= thread {
            parts.resize_with(thread + 1, Arc::default);
        }
        parts[thread].clone()
    }

    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder
            .register_gauge(&Self::key(name, labels), &METADATA)
    }

    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder
            .register_histogram(&Self::key(name, labels), &METADATA)
    }

    /// Says what a metric means, in the text that is rendered.
    pub fn describe(&self, table: &[Described]) {
        for &Described(name, kind, text) in table {
            let (name, text) = (name.into(), text.into());
            match kind {
                Kind::Counter => self.recorder.describe_counter(name, None, text),
                Kind::Gauge => self.recorder.describe_gauge(name, None, text),
                Kind::Histogram => self.recorder.describe_histogram(name, None, text),
            }
        }
    }

    /// As [`Registry::describe`], for the process' own figures.
    pub fn describe_process(&self, process: &metrics_process::Collector) {
        metrics::with_local_recorder(&*self.recorder, || process.describe());
    }

    /// The Prometheus text, with the process' own figures as of now.
    pub fn render(&self, process: &metrics_process::Collector) -> String {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        for tallied in tallies.iter() {
            let sum = tallied.parts.iter().map(|part| part.get());
            tallied.counter.absolute(sum.sum());
        }
        drop(tallies);
        metrics::with_local_recorder(&*self.recorder, || process.collect());
        self.handle.render()
    }

    /// To be called every [`UPKEEP`].
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// A counter that is the sum of its parts.
struct Tallied {
    key: Key,
    counter: Counter,
    parts: Vec<Arc<Tally>>,
}

/// What one thread has counted. A counter that several threads add to makes each wait for the others'
/// processor; this one costs as much as a variable.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally(AtomicU64);

impl Tally {
    /// Only from the thread that it belongs to.
    pub fn add(&self, n: u64) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(n), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Name, kind and meaning of a metric.
#[derive(Clone, Copy)]
pub struct Described(pub &'static str, pub Kind, pub &'static str);

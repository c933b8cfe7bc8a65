//! The usual `process_*` metrics, read when somebody asks.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::device::host;

#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if let Some(seconds) = host::process_cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        #[allow(clippy::cast_precision_loss)] // Prometheus values are floats
        let float = |value: u64| value as f64;
        let memory = host::process_memory();
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", memory.map(|memory| float(memory.resident_bytes))),
            ("process_virtual_memory_bytes", "Virtual memory", memory.map(|memory| float(memory.virtual_bytes))),
            ("process_start_time_seconds", "Start since the epoch", host::process_start_seconds()),
            ("process_open_fds", "Open file descriptors", host::open_fds().map(|count| float(count as u64))),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

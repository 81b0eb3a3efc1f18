//! The text of OpenMetrics.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, EncodeMetric as _,
        text::encode,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Fill, Interface, Measures, Series};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a scrape is answered.
///
/// # Errors
///
/// Never, as writing to a string does not fail.
pub fn text(measures: Measures) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(measures));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Measures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.encode_identity(&mut families)?;
        self.encode_packets(&mut families)?;
        self.encode_interfaces(&mut families)?;
        self.encode_maps(&mut families)?;
        self.encode_steering(&mut families)?;
        self.encode_synchronisations(&mut families)?;
        self.encode_process(&mut families)
    }
}

impl Measures {
    fn encode_identity(&self, families: &mut Families<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        families.infos("mhebpf_build", "The version of mhebpf that runs.", [version])?;
        let mode = [("mode", self.mode.as_str())];
        families.infos("mhebpf_mode", "The mode: in observe, nothing is changed anywhere.", [mode])
    }

    fn encode_packets(&self, families: &mut Families<'_>) -> fmt::Result {
        families.counters(
            "mhebpf_packets",
            "Packets that did not simply pass; those that are observed did pass, and what is counted would be done.",
            self.packets.iter().map(|(series, packets)| (labels(series), *packets)),
        )?;
        families.counter(
            "mhebpf_counts_lost",
            "Packets that did not simply pass and could not be counted, as the table of counters had no room.",
            None,
            self.counts_lost,
        )?;
        families.counter(
            "mhebpf_samples_suppressed",
            "Packets that were not shown to monitors, for the rate or for a lack of room.",
            None,
            self.suppressed_samples,
        )
    }

    fn encode_interfaces(&self, families: &mut Families<'_>) -> fmt::Result {
        let info = |interface: &Interface| {
            let Interface { name, hook, policy, .. } = interface;
            [
                ("interface", name.clone()),
                ("hook", (*hook).to_owned()),
                ("send", policy.send.clone()),
                ("receive", policy.receive.clone()),
                ("announce", policy.announce.clone()),
                ("unknown", policy.unknown.clone()),
            ]
        };
        families.infos(
            "mhebpf_interface",
            "What is enforced on an interface, and how the programs are attached.",
            self.interfaces.iter().map(info),
        )?;
        families.gauges(
            "mhebpf_interface_up",
            "Whether an enforced interface is up and has carrier.",
            self.interfaces.iter().map(|each| ([("interface", each.name.as_str())], u64::from(each.up))),
        )?;
        families.gauges(
            "mhebpf_interface_behind_others",
            "Whether programs or filters of others come before those of mhebpf, so that packets whose way they end are not judged.",
            self.interfaces.iter().map(|each| ([("interface", each.name.as_str())], u64::from(each.is_behind))),
        )
    }

    fn encode_maps(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauge(
            "mhebpf_local_addresses",
            "Local addresses in the maps; those of a prefix count once.",
            None,
            Some(self.local_addresses),
        )?;
        families.gauge(
            "mhebpf_next_hops",
            "Next hops in the maps, of all owners.",
            None,
            Some(self.next_hops),
        )?;
        let map = |fill: &Fill| [("map", fill.map)];
        families.gauges(
            "mhebpf_map_entries",
            "Entries of a BPF map.",
            self.maps.iter().map(|fill| (map(fill), fill.entries as u64)),
        )?;
        families.gauges(
            "mhebpf_map_capacity",
            "Entries that a BPF map has room for.",
            self.maps.iter().map(|fill| (map(fill), u64::from(fill.capacity))),
        )?;
        families.gauge(
            "mhebpf_interfaces_without_room",
            "Interfaces that are not enforced as they should be, as the BPF maps have no room.",
            None,
            Some(self.without_room),
        )
    }

    fn encode_steering(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauge(
            "mhebpf_steering_rules",
            "Rules of policy routing that are kept for owned sources.",
            None,
            self.steering.map(|(rules, _)| rules),
        )?;
        families.gauge(
            "mhebpf_steering_routes",
            "Routes in the tables that those rules lead to.",
            None,
            self.steering.map(|(_, routes)| routes),
        )
    }

    fn encode_synchronisations(&self, families: &mut Families<'_>) -> fmt::Result {
        families.counter(
            "mhebpf_synchronisations",
            "How often the maps were brought in step with the host.",
            None,
            self.synchronisations,
        )?;
        families.counter(
            "mhebpf_synchronisation_failures",
            "How often bringing the maps in step with the host failed, to be tried again.",
            None,
            self.failures,
        )?;
        families.counter(
            "mhebpf_interrupted_dumps",
            "Dumps of the host that were interrupted by a change, and taken again.",
            None,
            self.interrupted_dumps,
        )?;
        families.counter(
            "mhebpf_event_overruns",
            "How often the kernel had more events than the socket could keep, so that some were lost.",
            None,
            self.overruns,
        )?;
        families.counter(
            "mhebpf_programs_restored",
            "How often programs were attached again that somebody had taken off, or put first again where others were before them.",
            None,
            self.restored,
        )?;
        families.histogram(
            "mhebpf_synchronisation_duration",
            "How long it took to bring the maps in step with the host, from the dump to the last entry.",
            &self.durations.all,
        )?;
        families.gauge(
            "mhebpf_last_synchronisation_duration",
            "How long the last synchronisation took.",
            Some(&Unit::Seconds),
            Some(self.durations.last),
        )?;
        families.gauge(
            "mhebpf_in_step",
            "Whether the maps are known to be those of the host as it is now.",
            None,
            Some(u64::from(self.in_step)),
        )?;
        families.gauge(
            "mhebpf_last_in_step_timestamp",
            "When the maps were last found to be those of the host, in seconds since 1970.",
            Some(&Unit::Seconds),
            self.last_in_step,
        )?;
        families.gauge(
            "mhebpf_last_in_step_age",
            "How long ago the maps were last found to be those of the host.",
            Some(&Unit::Seconds),
            self.last_in_step_age,
        )
    }

    fn encode_process(&self, families: &mut Families<'_>) -> fmt::Result {
        families.counter(
            "mhebpf_log_lines_dropped",
            "Lines of the log that were left out, as nobody read it or it could not be written.",
            None,
            self.log_lines_dropped,
        )?;
        families.gauge(
            "process_start_time",
            "When the process was started, in seconds since 1970.",
            Some(&Unit::Seconds),
            Some(self.started),
        )?;
        families.gauge(
            "process_resident_memory",
            "The resident memory of the process.",
            Some(&Unit::Bytes),
            self.resident_memory,
        )?;
        families.counter(
            "process_cpu",
            "Processor time that the process has taken, by itself and in the kernel.",
            Some(&Unit::Seconds),
            self.processor_time,
        )
    }
}

fn labels(series: &Series) -> [(&'static str, &str); 5] {
    [
        ("interface", &series.interface),
        ("direction", series.direction.name()),
        ("family", series.family.name()),
        ("reason", series.reason.name()),
        ("observed", if series.observed { "true" } else { "false" }),
    ]
}

/// Writes one family of metrics after the other.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, unit, MetricType::Counter)?)
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = ([(&'static str, &'a str); 5], u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Without a value, which is not known then, the metric is described all the same.
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: Option<impl EncodeGaugeValue>,
    ) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| ConstGauge::new(value).encode(encoder))
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = ([(&'static str, &'a str); 1], u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn infos<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        infos: impl IntoIterator<Item = L>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        infos.into_iter().try_for_each(|labels| encoder.encode_info(&labels))
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        histogram.encode(self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?)
    }
}

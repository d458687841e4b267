//! Faults against Apache Kafka itself.

mod kill_9;
mod power_cut;

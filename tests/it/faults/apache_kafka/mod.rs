//! Faults against Apache Kafka itself.

mod brokers;
mod kill_9;
mod power_cut;

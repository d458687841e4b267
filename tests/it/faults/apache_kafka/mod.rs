//! Faults against Apache Kafka itself.

mod brokers;
mod group;
mod kill_9;
mod logs;
mod power_cut;
mod replay;

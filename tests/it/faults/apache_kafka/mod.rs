//! Faults against Apache Kafka itself.

mod kill_9;

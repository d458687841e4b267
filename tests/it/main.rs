//! Records in through a broker, out by HTTP and from the file: the sink as its users meet it.

mod abuse;
mod access;
mod apache_kafka;
mod box_faults;
mod bulk;
mod chain;
mod cli;
mod corruption;
mod coverage;
mod decode;
mod demo;
mod documents;
mod durability;
mod erasure;
mod faults;
mod harness;
mod http;
mod lifecycle;
mod pipeline;
mod replay;
mod rules;
mod tenancy;
mod tidy;
mod tokens;
mod workbench;

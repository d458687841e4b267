//! `POST /consumer/resume`: goes on with partitions that were halted.

use std::time::Duration;

use serde::Serialize;

use crate::queue::Orders;
use crate::serve::reply::{ApiError, Reply};

/// How long the writer may take to note it.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Resumed {
    status: &'static str,
    partitions: Vec<TopicPartition>,
}

#[derive(Serialize)]
struct TopicPartition {
    topic: String,
    partition: i32,
}

pub fn post(orders: &Orders, topic: Option<String>, partition: Option<i32>) -> Result<Reply, ApiError> {
    if partition.is_some() && topic.is_none() {
        let problem = "goes with a topic, as ?topic=apexflow.leads.created&partition=0".to_owned();
        return Err(ApiError::Parameter { parameter: "partition", problem });
    }
    let resumed = orders.resume(topic, partition, PATIENCE)?;
    let one = |(topic, partition): &(std::sync::Arc<str>, i32)| TopicPartition {
        topic: topic.to_string(),
        partition: *partition,
    };
    Ok(Reply::json(200, &Resumed { status: "resumed", partitions: resumed.iter().map(one).collect() }))
}

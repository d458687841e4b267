//! `POST /consumer/resume`: goes on with partitions that were halted.

use schemars::JsonSchema;
use serde::Serialize;

use super::call::Call;
use super::dlq::TOPIC;
use super::parameter::Parameter;
use super::{OperatorApi, PATIENCE};
use crate::queue::Order;
use crate::serve::reply::{ApiError, Reply};

pub const PARTITION: Parameter =
    Parameter::integer("partition", (0, i32::MAX as i64), "One partition of that topic", "0");

#[derive(Serialize, JsonSchema)]
pub struct Resumed {
    #[schemars(example = &"resumed")]
    status: &'static str,
    partitions: Vec<TopicPartition>,
}

#[derive(Serialize, JsonSchema)]
pub struct TopicPartition {
    topic: String,
    partition: i32,
}

pub fn post(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let (topic, partition) = (call.text(&TOPIC), call.number(&PARTITION));
    if call.text(&PARTITION).is_some() && topic.is_none() {
        let problem = "goes with a topic, as ?topic=apexflow.leads.created&partition=0";
        return Err(ApiError::parameter(PARTITION.name, problem));
    }
    let which = topic.clone().unwrap_or_else(|| "every topic".to_owned());
    let target = partition.map_or(which.clone(), |partition| format!("{which}/{partition}"));
    let act = call.act(target);
    let resumed = api.orders.give(PATIENCE, |answer| Order::Resume { topic, partition, act, answer })?;
    let one = |(topic, partition): &(std::sync::Arc<str>, i32)| TopicPartition {
        topic: topic.to_string(),
        partition: *partition,
    };
    Ok(Reply::json(200, &Resumed { status: "resumed", partitions: resumed.iter().map(one).collect() }))
}

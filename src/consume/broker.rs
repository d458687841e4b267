//! What is asked of the broker beside records. Every call blocks the thread that polls, so each has a bound.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings::*;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// An id of 0 in base64: a broker that gives none.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// A queue of librdkafka's own, for one answer.
struct Answers(*mut rd_kafka_queue_t);

impl Answers {
    fn of<C: ClientContext>(client: &Client<C>) -> Answers {
        // SAFETY: the client is alive while it is borrowed.
        Answers(unsafe { rd_kafka_queue_new(client.native_ptr()) })
    }

    /// The answer, if it comes in time.
    fn wait(&self, patience: Duration) -> KafkaResult<Answer> {
        // SAFETY: the queue lives as long as `self`; what it gives is ours to destroy.
        let event = unsafe { rd_kafka_queue_poll(self.0, i32::try_from(patience.as_millis()).unwrap_or(i32::MAX)) };
        if event.is_null() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        }
        let answer = Answer(event);
        // SAFETY: the event was just received.
        match unsafe { rd_kafka_event_error(event) } {
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(answer),
            error => Err(KafkaError::MetadataFetch(error.into())),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: made by `of`, destroyed once.
        unsafe { rd_kafka_queue_destroy(self.0) }
    }
}

struct Answer(*mut rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: received by `wait`, destroyed once.
        unsafe { rd_kafka_event_destroy(self.0) }
    }
}

/// Kafka's ids of topics (KIP-516), `None` where the broker gives none. A topic that does not exist is left out.
///
/// # Errors
/// If the broker does not answer in time.
pub fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    patience: Duration,
) -> KafkaResult<HashMap<String, Option<String>>> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let mut pointers: Vec<*const std::ffi::c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // Any broker knows them; left to itself librdkafka would wait for the controller, which may be away.
    let metadata = client.fetch_metadata(topics.first().copied(), patience)?;
    // One that was only bootstrapped from has no number yet.
    let known = metadata.brokers().first().map_or(-1, |broker| broker.id());
    let broker = if metadata.orig_broker_id() >= 0 { metadata.orig_broker_id() } else { known };
    let answers = Answers::of(client);
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the names outlive the collection, which copies them; collection and options are destroyed here, after
    // the request that copies them in turn.
    unsafe {
        let collection = rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options =
            rd_kafka_AdminOptions_new(client.native_ptr(), rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        rd_kafka_AdminOptions_set_request_timeout(options, milliseconds, ptr::null_mut(), 0);
        rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        rd_kafka_DescribeTopics(client.native_ptr(), collection, options, answers.0);
        rd_kafka_AdminOptions_destroy(options);
        rd_kafka_TopicCollection_destroy(collection);
    }
    let answer = answers.wait(patience)?;
    let mut ids = HashMap::new();
    // SAFETY: the result and all it points to belong to the answer, which lives to the end of this function.
    unsafe {
        let mut count = 0;
        let described =
            rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(answer.0), &mut count);
        for number in 0..count {
            let topic = *described.add(number);
            let error = rd_kafka_error_code(rd_kafka_TopicDescription_error(topic));
            if error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                continue;
            }
            let name = CStr::from_ptr(rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
            let id = CStr::from_ptr(rd_kafka_Uuid_base64str(rd_kafka_TopicDescription_topic_id(topic)));
            let id = id.to_string_lossy().into_owned();
            ids.insert(name, (id != NO_ID).then_some(id));
        }
    }
    Ok(ids)
}

/// Commits and waits for the coordinator's answer, for a bounded time: the crate's own synchronous commit waits 45 s
/// for a broker that is down.
///
/// # Errors
/// If it was refused, or not answered in time.
pub fn commit<C: ClientContext>(
    client: &Client<C>,
    offsets: &TopicPartitionList,
    patience: Duration,
) -> KafkaResult<()> {
    let answers = Answers::of(client);
    // SAFETY: list, client and queue are alive; librdkafka copies the list.
    let error = unsafe { rd_kafka_commit_queue(client.native_ptr(), offsets.ptr(), answers.0, None, ptr::null_mut()) };
    if error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(KafkaError::ConsumerCommit(error.into()));
    }
    answers.wait(patience).map(|_| ())
}

//! Records that keep coming while the faults do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Message};

use super::comparison::{Place, digest};
use crate::harness::event;

/// Of a hundred records, how many are no events and belong in the DLQ.
const MALFORMED_PERCENT: u8 = 3;
/// How long the broker may take for the last records: longer than any fault.
const FLUSH: Duration = Duration::from_secs(120);

/// What the broker acknowledged: where each record stands, and the digest of its value.
type Acknowledged = Vec<(Place, u64)>;

/// Writes down what the broker says of each record.
#[derive(Default)]
struct Receipts {
    acknowledged: Mutex<Acknowledged>,
    refused: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Context(Arc<Receipts>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult, _: ()) {
        match result {
            // A broker that had it from an attempt before, whose answer was lost, does not say where.
            Ok(record) if record.offset() < 0 => {}
            Ok(record) => {
                let place = (record.topic().to_owned(), record.partition(), record.offset());
                self.0.acknowledged.lock().unwrap().push((place, digest(record.payload())));
            }
            Err((error, _)) => self.0.refused.lock().unwrap().push(error.to_string()),
        }
    }
}

/// A producer (idempotent, acks=all) that sends to several topics until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    receipts: Arc<Receipts>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Sends `per_second` records with at least `bytes` bytes.
    pub fn start(
        bootstrap: &str,
        topics: &'static [&str],
        per_second: u64,
        bytes: usize,
        mut chance: fastrand::Rng,
    ) -> Load {
        let receipts = Arc::new(Receipts::default());
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("linger.ms", "5");
        config.set("partitioner", "murmur2_random").set("reconnect.backoff.max.ms", "500");
        let producer: ThreadedProducer<Context> = config.create_with_context(Context(receipts.clone())).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                while number < began.elapsed().as_millis() as u64 * per_second / 1000 {
                    send(&producer, topics[number as usize % topics.len()], number, bytes, &mut chance);
                    number += 1;
                }
                thread::sleep(Duration::from_millis(5));
            }
            producer.flush(FLUSH).unwrap();
        });
        Load { stop, receipts, thread: Some(thread) }
    }

    /// Everything that was acknowledged. Fails if the broker refused a record: the comparison would prove less.
    pub fn stop(mut self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let refused = self.receipts.refused.lock().unwrap();
        assert!(refused.is_empty(), "{} records were not taken: {}", refused.len(), refused[0]);
        std::mem::take(&mut *self.receipts.acknowledged.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(producer: &ThreadedProducer<Context>, topic: &str, number: u64, bytes: usize, chance: &mut fastrand::Rng) {
    let key = format!("acme:lead:{}", chance.u16(..500));
    let padding = " ".repeat(bytes);
    let value = match chance.u8(..100) {
        dice if dice >= MALFORMED_PERCENT => Some((event("acme", number) + &padding).into_bytes()),
        0 => None,
        1 => Some(vec![b'{', 0xff, b'\n', (number % 251) as u8]),
        _ => Some(format!("{{\"number\":{number},}}").into_bytes()),
    };
    let mut record = BaseRecord::to(topic).key(key.as_bytes());
    record.payload = value.as_deref();
    while let Err((_, back)) = producer.send(record) {
        record = back;
        thread::sleep(Duration::from_millis(1));
    }
}

//! The whole sink at work on a Kafka broker inside the process, with believable CRM traffic.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{Config, InForce, Property};
use crate::reload::Reload;
use crate::shutdown::{Cause, Shutdown};
use crate::store::Readers;
use crate::{Addresses, Failure, run};

const TOPICS: [&str; 6] = [
    "apexflow.leads.created",
    "apexflow.leads.status_changed",
    "apexflow.leads.note_added",
    "apexflow.leads.assigned",
    "apexflow.jobs.created",
    "apexflow.appointments.created",
];
const PARTITIONS: i32 = 3;
const TENANTS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
/// One record in so many is malformed.
const MALFORMED_EVERY: u64 = 50;

/// What `crm-events-sink demo` was asked for.
pub struct Demo {
    pub time: Option<Duration>,
    /// Events a second, 1 to 5000: the embedded broker keeps 5 MB a partition and no more.
    pub rate: u32,
    pub journal: Option<PathBuf>,
    pub broker_port: Option<u16>,
    pub metrics_listen: Option<SocketAddr>,
    pub api_listen: Option<SocketAddr>,
}

/// Runs until the time is up or `shutdown` is asked for.
///
/// # Errors
/// As [`run`], or if the embedded broker does not start.
pub fn demo(demo: &Demo, shutdown: &Arc<Shutdown>) -> Result<(), Failure> {
    let broker = embedded_broker().map_err(|error| Failure::Config(format!("the embedded broker: {error}")))?;
    let folder = tempfile::Builder::new().prefix("crm-events-sink-demo-").tempdir()?;
    let config = config(demo, &broker.bootstrap_servers(), folder.path().join("journal.db"));
    let journal = config.journal.path.clone();
    if let Some(port) = demo.broker_port {
        forward(port, broker.bootstrap_servers())?;
    }
    let traffic = {
        let (bootstrap, rate, shutdown) = (broker.bootstrap_servers(), demo.rate, Arc::clone(shutdown));
        thread::Builder::new().name("traffic".to_owned()).spawn(move || produce(&bootstrap, rate, &shutdown))?
    };
    if let Some(time) = demo.time {
        let shutdown = Arc::clone(shutdown);
        thread::Builder::new().name("clock".to_owned()).spawn(move || {
            shutdown.wait(time);
            shutdown.begin(Cause::Requested);
        })?;
    }
    let done = run(&Arc::new(InForce::new(config)), Arc::clone(shutdown), &Reload::default(), |addresses| {
        say_hello(demo, addresses, &journal)
    });
    shutdown.begin(Cause::Requested);
    let produced = traffic.join().unwrap_or(Err(KafkaError::Canceled));
    done?;
    match produced {
        Ok(records) => println!("\nDemo over: {records} records sent, {}", kept(&journal, demo.journal.is_some())?),
        Err(error) => println!("\nDemo over; the traffic stopped early: {error}"),
    }
    Ok(())
}

fn embedded_broker() -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaError> {
    let broker = MockCluster::new(1)?;
    for topic in TOPICS {
        broker.create_topic(topic, PARTITIONS, 1)?;
    }
    Ok(broker)
}

fn config(demo: &Demo, brokers: &str, journal: PathBuf) -> Config {
    let mut config = Config::default();
    config.kafka.brokers = brokers.to_owned();
    config.journal.path = demo.journal.clone().unwrap_or(journal);
    config.metrics.listen = demo.metrics_listen.unwrap_or(config.metrics.listen);
    config.api.listen = demo.api_listen.unwrap_or(config.api.listen);
    // The embedded broker answers a fetch when its time is over rather than when a record comes, and finishes a
    // rebalance a second before the session would end.
    for (name, value) in [("fetch.wait.max.ms", 10), ("session.timeout.ms", 6000)] {
        config.kafka.properties.insert(name.to_owned(), Property::Integer(value));
    }
    config
}

fn say_hello(demo: &Demo, addresses: Addresses, journal: &std::path::Path) {
    let Addresses { api, metrics } = addresses;
    let journal = journal.display();
    println!(
        "CRM Events Sink, demo: {} events a second of {} topics, from a Kafka broker inside this process.\n\
         The journal is {journal}. The first events show after about 4 seconds. In another terminal:\n\n  \
         curl http://{api}/events/latest?limit=5\n  \
         curl http://{api}/events/5\n  \
         curl -X POST http://{api}/replay/5\n  \
         curl -X POST 'http://{api}/replay/range?start=2025-01-01&dry_run=true'\n  \
         curl http://{api}/dlq\n  \
         curl http://{api}/health\n  \
         curl http://{metrics}/metrics\n  \
         crm-events-sink replay 1 2 3 --yes --api http://{api}\n  \
         crm-events-sink dlq groups --api http://{api}\n  \
         crm-events-sink sql --journal {journal} 'SELECT topic, count(*) FROM event_journal GROUP BY topic'",
        demo.rate,
        TOPICS.len(),
    );
    if let Some(port) = demo.broker_port {
        println!("  kcat -b localhost:{port} -C -t {} -o end", TOPICS[0]);
    }
    match demo.time {
        Some(time) => println!("\nIt ends by itself after {} s; Ctrl-C ends it sooner.", time.as_secs_f32()),
        None => println!("\nCtrl-C ends it."),
    }
}

fn kept(journal: &std::path::Path, keep: bool) -> Result<String, Failure> {
    let (events, dead_letters) = Readers::open(journal).counts()?;
    let fate = if keep { format!("kept in {}", journal.display()) } else { "removed".to_owned() };
    Ok(format!("{events} events journaled, {dead_letters} dead letters; the journal is {fate}."))
}

/// Sends `rate` records a second until the sink stops; how many.
fn produce(brokers: &str, rate: u32, shutdown: &Shutdown) -> Result<u64, KafkaError> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("partitioner", "murmur2_random").create()?;
    let began = Instant::now();
    let mut sent = 0;
    while !shutdown.wait(Duration::from_millis(20)) {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while sent < due {
            let record = traffic(sent);
            let queued = producer.send(BaseRecord::to(record.topic).key(&record.key).payload(&record.value));
            match queued {
                Ok(()) => sent += 1,
                // The producer's own queue is full: the rest is due at the next tick.
                Err(_) => break,
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(2))?;
    Ok(sent)
}

struct Traffic {
    topic: &'static str,
    key: String,
    value: String,
}

/// The `number`th record of the demo.
fn traffic(number: u64) -> Traffic {
    let tenant = TENANTS[fastrand::usize(..TENANTS.len())];
    let kind = [0, 0, 0, 1, 1, 2, 2, 3, 4, 5][fastrand::usize(..10)];
    // Now and then something happens to a lead of before.
    let id = if kind == 0 { number } else { fastrand::u64(..=number) };
    let entity = ["lead", "lead", "lead", "lead", "job", "appointment"][kind];
    let key = format!("{tenant}:{entity}:{id}");
    let mut value = body(kind, tenant, id).to_string();
    if number % MALFORMED_EVERY == MALFORMED_EVERY - 1 {
        value = malformed(&value);
    }
    Traffic { topic: TOPICS[kind], key, value }
}

fn body(kind: usize, tenant: &str, id: u64) -> Value {
    let pick = |from: &[&str]| from[fastrand::usize(..from.len())].to_owned();
    let first = pick(&["Ada", "Grace", "Alan", "Edsger", "Barbara", "Ken", "Frances", "José"]);
    let last = pick(&["Lovelace", "Hopper", "Turing", "Dijkstra", "Liskov", "Thompson", "Allen", "García"]);
    let agent = pick(&["agent-1", "agent-2", "agent-3"]);
    let now = Timestamp::now();
    let status = ["new", "contacted", "qualified", "won", "lost"];
    let mut event = match kind {
        0 => json!({
            "event_type": "lead.created", "id": id, "name": format!("{first} {last}"),
            "email": format!("{}.{}@example.com", first.to_lowercase(), last.to_lowercase()),
            "phone": format!("+1-555-01{:02}", id % 100), "source": pick(&["web", "phone", "referral", "fair"]),
            "status": "new", "assigned_to": null, "tags": [pick(&["solar", "roof", "hvac"])], "created_at": now.to_string(),
        }),
        1 => {
            json!({ "event_type": "lead.status_changed", "id": id, "old_status": pick(&status), "status": pick(&status) })
        }
        2 => {
            json!({ "event_type": "lead.note_added", "id": id, "note": pick(&["Called back", "Wants an offer", "No answer"]) })
        }
        3 => json!({ "event_type": "lead.assigned", "id": id, "assigned_to": agent }),
        4 => {
            json!({ "event_type": "job.created", "id": id, "name": format!("Installation at {last}'s"), "status": "planned" })
        }
        _ => json!({
            "event_type": "appointment.created", "id": id, "name": format!("Visit {first} {last}"),
            "starts_at": (now + SignedDuration::from_hours(24)).to_string(),
        }),
    };
    event["tenant_id"] = tenant.into();
    event["event_version"] = 1.into();
    event["published_at"] = now.to_string().into();
    event["actor"] = agent.into();
    event
}

/// What producers get wrong: a value cut short, a list, a bare word.
fn malformed(value: &str) -> String {
    let half = (0..=value.len() / 2).rfind(|&at| value.is_char_boundary(at)).unwrap_or(0);
    match fastrand::u8(..3) {
        0 => value[..half].to_owned(),
        1 => format!("[{value}]"),
        _ => "undefined".to_owned(),
    }
}

/// Lets clients find the embedded broker, whose own port is random, at `port`. Kafka clients ask there once and
/// then go to the broker itself.
fn forward(port: u16, broker: String) -> Result<(), Failure> {
    let taken = |error| Failure::Port(format!("--broker-port: cannot listen on port {port}: {error}; choose another"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).map_err(taken)?;
    let serve = async move {
        // A connection that fails is its client's to notice.
        while let Ok((mut client, _)) = listener.accept().await {
            let broker = broker.clone();
            tokio::spawn(async move {
                if let Ok(mut upstream) = TcpStream::connect(broker).await {
                    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.ok();
                }
            });
        }
    };
    thread::Builder::new().name("broker-port".to_owned()).spawn(move || runtime.block_on(serve))?;
    Ok(())
}

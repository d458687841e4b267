//! Each query of the operators' guide and of the search, over HTTP where it has a route, by SQL where the guide has
//! SQL, in turns, while events come in; and ingestion's own rate with and without these readers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::load::{Load, Sink, newest, rate, reader};

const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(25);
/// Operators who ask one question after the other.
const READERS: usize = 2;

/// `{t}` is a tenant, one with many events as often as one with few; `{id}` an event of any age.
const QUERIES: &[(&str, &str)] = &[
    ("guide: 100 newest", "/events/latest?limit=100"),
    ("guide: dead letters", "/dlq"),
    ("guide: one event", "/events/{id}"),
    (
        "guide, SQL: ids of the last hour",
        "SELECT id FROM event_journal WHERE received_at >= '2025-11-03 19:00:00' AND received_at < '2026' ORDER BY id",
    ),
    (
        "guide, SQL: a tenant's events, the first 20",
        "SELECT id, topic, payload->>'name', received_at FROM event_journal WHERE tenant_id = '{t}' ORDER BY received_at DESC",
    ),
    (
        "guide, SQL: a topic's last 20",
        "SELECT id, tenant_id, payload, received_at FROM event_journal WHERE topic = 'apexflow.leads.created' ORDER BY received_at DESC LIMIT 20",
    ),
    ("newest 20", "/events"),
    ("of a tenant", "/events?tenant_id={t}"),
    ("of a tenant, 1000 with payload", "/events?tenant_id={t}&limit=1000&payload=true"),
    ("of a topic", "/events?topic=apexflow.leads.assigned"),
    ("of a topic by a word", "/events?topic=leads"),
    ("of a topic by a glob", "/events?topic=apexflow.*.created"),
    ("of a tenant and topic", "/events?tenant_id={t}&topic=appointments"),
    ("of a tenant in a week", "/events?tenant_id={t}&since=2025-09-20&until=2025-09-27"),
    ("of an hour long ago", "/events?since=2025-09-20T10:00&until=2025-09-20T11:00&limit=1000"),
    ("of a key", "/events?key={t}:lead:7"),
    ("history", "/events/{id}/history"),
    ("replays only", "/events?replays=only"),
    ("by type", "/events?event_type=job.created"),
    ("by type, a rare one: a page", "/events?event_type=lead.merged"),
    ("where payload.status:qualified", "/events?where=payload.status:qualified"),
    ("where, of a tenant", "/events?tenant_id={t}&where=payload.assigned_to:user-7"),
    ("q, text that is rare: a page", "/events?q=Person+1234567%22"),
    ("q, of a key", "/events?key={t}:lead:7&q=qualified"),
    ("export of 10,000", "/export?tenant_id=tenant-001&limit=10000&mask=email,phone"),
];

type Times = Mutex<BTreeMap<usize, Vec<Duration>>>;

pub fn measure(journal: &Path, events: u64) {
    let mut load = Load::prepare();
    let sink = Sink::start(journal, &load.brokers);
    load.begin(journal, events);
    let begun = newest(journal);
    while newest(journal) < begun + 10_000 {
        thread::sleep(Duration::from_millis(100));
    }
    let times = Times::default();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(rate(journal, || thread::sleep(ROUND)));
        beside.push(rate(journal, || read(&sink.api, journal, events, &times)));
    }
    println!("{events} events, {} of them while this was measured", newest(journal) - begun);
    println!("| query | times | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|");
    for (query, mut times) in times.into_inner().unwrap() {
        times.sort_unstable();
        let ms = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
        println!("| {} | {} | {:.1} | {:.1} | {:.1} |", QUERIES[query].0, times.len(), ms(0.5), ms(0.99), ms(1.0));
    }
    println!("events stored a second: alone {alone:.0?}, with {READERS} readers {beside:.0?}");
    let sum = |rates: &[f64]| rates.iter().sum::<f64>();
    println!("ratio {:.2}", sum(&beside) / sum(&alone));
}

fn read(api: &str, journal: &Path, events: u64, times: &Times) {
    let until = Instant::now() + ROUND;
    thread::scope(|scope| {
        for number in 0..READERS {
            scope.spawn(move || {
                let mut random = Rng::new();
                let mut turn = number * QUERIES.len() / READERS + random.usize(0..QUERIES.len());
                while Instant::now() < until {
                    turn += 1;
                    let query = turn % QUERIES.len();
                    let asked = fill(QUERIES[query].1, events, &mut random);
                    let began = Instant::now();
                    if asked.starts_with('/') {
                        ask(&format!("{api}{asked}"))
                    } else {
                        select(journal, &asked)
                    }
                    times.lock().unwrap().entry(query).or_default().push(began.elapsed());
                }
            });
        }
    });
}

fn fill(query: &str, events: u64, random: &mut Rng) -> String {
    let tenant = format!("tenant-{:03}", random.usize(0..200));
    query.replace("{t}", &tenant).replace("{id}", &random.u64(1..=events).to_string())
}

fn ask(url: &str) {
    let mut answer = ureq::get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
}

/// As the shell does it: at most the first 20 rows of a list that goes on.
fn select(journal: &Path, sql: &str) {
    let reader = reader(journal);
    let mut select = reader.prepare(sql).unwrap();
    let mut rows = select.query([]).unwrap();
    let is_whole = sql.contains("SELECT id FROM");
    let mut count = 0;
    while rows.next().unwrap().is_some() && (is_whole || count < 19) {
        count += 1;
    }
    assert!(count > 0, "{sql}");
}

//! Nothing lost, nothing doubled: the process dies, the file cannot be written, the topic begins again.

use rusqlite::Connection;

use crate::harness::{Embedded, Sender, Setup, Sink, eventually};

const LEADS: &str = "apexflow.leads.created";

fn distinct(sink: &Sink) -> i64 {
    sink.value("SELECT count(DISTINCT kafka_partition || '/' || kafka_offset) FROM event_journal")
}

#[test]
fn kill_9_in_the_middle_loses_and_doubles_nothing() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let sender = Sender::to(&broker.bootstrap());
    let mut sink = Setup::with(&broker.bootstrap()).toml("write.batch_rows_max = 50\nqueue.batches_max = 2").start();
    let total = 9000;
    for round in 0..3 {
        for number in 0..total / 3 {
            sender.queue_event(LEADS, "acme", round * total / 3 + number);
        }
        sender.flush();
        let some = (round * total / 3 + 200) as i64;
        eventually("some of the events are stored", || sink.events() > some);
        sink.kill();
        sink = sink.restart();
    }
    sink.await_events(total as i64);
    assert_eq!(distinct(&sink), total as i64);
    assert_eq!(sink.value::<i64>("SELECT count(DISTINCT payload->>'id') FROM event_journal"), total as i64);
}

#[test]
fn a_locked_file_makes_the_sink_wait_and_no_dead_letters() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).start();
    sender.event(LEADS, "acme", 0);
    sink.await_events(1);

    let other = Connection::open(sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 1..500 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    eventually("health says so", || sink.get("/health").body.contains("write: database is locked"));
    assert_eq!(sink.get("/events/latest").json()[0]["id"], 1, "readers do not wait");
    other.execute_batch("ROLLBACK").unwrap();

    sink.await_events(500);
    assert_eq!((sink.dead_letters(), distinct(&sink)), (0, 500));
    eventually("it is healthy again", || sink.get("/health").status == 200);
    assert_eq!(sink.log().matches("not working").count(), 1);
}

#[test]
fn a_full_queue_pauses_consumption_and_every_event_arrives_later() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let settings =
        "queue.batches_max = 1\nqueue.batch_bytes_max = 4096\nwrite.batch_rows_max = 10\nlog.level = 'debug'";
    let sink = Setup::with(&broker.bootstrap()).toml(settings).start();
    sender.event(LEADS, "acme", 0);
    sink.await_events(1);
    let other = Connection::open(sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 1..2000 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    eventually("the partitions are paused", || sink.log().contains("paused=true"));
    eventually("the lag shows what waits", || sink.metric_sum("crm_events_consumer_lag") == 1999.0);
    other.execute_batch("ROLLBACK").unwrap();
    sink.await_events(2000);
    assert_eq!((sink.dead_letters(), distinct(&sink)), (0, 2000));
    assert_eq!(sink.metric_sum("crm_events_ingested_total"), 2000.0);
    assert_eq!(sink.metric_sum("crm_events_persisted_total"), 2000.0);
    eventually("nothing waits any more", || sink.metric_sum("crm_events_consumer_lag") == 0.0);
}

#[test]
fn a_stop_while_the_file_cannot_be_written_loses_nothing() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let mut sink = Setup::with(&broker.bootstrap()).toml("shutdown_timeout = '2s'").start();
    let other = Connection::open(sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..100 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    eventually("health says so", || sink.get("/health").body.contains("write: database is locked"));
    assert_eq!(sink.stop(), Some(0));
    other.execute_batch("ROLLBACK").unwrap();
    let sink = sink.restart();
    sink.await_events(100);
    assert_eq!(distinct(&sink), 100);
}

#[test]
fn a_topic_whose_offsets_begin_again_is_read_from_its_beginning() {
    let first = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&first.bootstrap()).start();
    let sender = Sender::to(&first.bootstrap());
    for number in 0..20 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    sink.await_events(20);
    // Another broker with a topic of the same name stands for a topic that was deleted and created again.
    let second = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&second.bootstrap());
    for number in 100..105 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    let config = sink.folder.path().join("config.toml");
    let moved = std::fs::read_to_string(&config).unwrap().replace(&first.bootstrap(), &second.bootstrap());
    std::fs::write(&config, moved).unwrap();
    let sink = sink.restart();
    sink.await_events(25);
    assert_eq!(sink.metric_sum("crm_events_log_restarts_total"), 1.0);
    assert!(sink.log().contains("the broker's log begins again"));
}

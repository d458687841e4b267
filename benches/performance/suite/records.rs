//! What comes in: events of 20 tenants in six topics, as a CRM sends them. The same every time, byte for byte.

use fastrand::Rng;

pub const TENANTS: [&str; 20] = [
    "acme",
    "globex",
    "initech",
    "umbrella",
    "hooli",
    "stark",
    "wayne",
    "wonka",
    "tyrell",
    "cyberdyne",
    "soylent",
    "gringotts",
    "aperture",
    "oscorp",
    "vandelay",
    "dunder",
    "pied",
    "bluth",
    "sterling",
    "massive",
];
/// Each topic's name without what it begins with, and the type of its events. The first three make something new.
pub const TOPICS: [(&str, &str); 6] = [
    ("leads.created", "lead.created"),
    ("jobs.created", "job.created"),
    ("appointments.created", "appointment.created"),
    ("leads.status_changed", "lead.status_changed"),
    ("leads.note_added", "lead.note_added"),
    ("leads.assigned", "lead.assigned"),
];
pub const PARTITIONS: usize = 3;
pub const PAYLOAD_BYTES: usize = 361;
const NAMES: [&str; 8] = [
    "Anna Huber",
    "Josef Gruber",
    "Maria Bauer",
    "Karl Wagner",
    "Eva Steiner",
    "Max Moser",
    "Lea Mayer",
    "Tom Pichler",
];
const NOTES: &str = "Called back on Monday and asked for an offer by the end of the week. Wants the garage done as well, prefers mornings, \
                     and the dog is friendly. Sent the brochure again, waits for the bank. Neighbour of an earlier customer. ";

pub struct Record {
    pub tenant: &'static str,
    /// Into [`TOPICS`].
    pub topic: usize,
    pub key: String,
    pub payload: String,
}

/// One record after the other, without end.
pub struct Records {
    random: Rng,
    number: u64,
    /// Of each tenant, how many there are of each new thing.
    made: [[u64; 3]; TENANTS.len()],
}

impl Records {
    pub fn new() -> Records {
        Records { random: Rng::with_seed(361), number: 0, made: [[0; 3]; TENANTS.len()] }
    }

    /// One event in eight is of something new, so that a key has eight. What happens, happens to the newer leads rather.
    fn choose(&mut self, tenant: usize) -> (usize, u64) {
        let new = match self.random.u32(0..1000) {
            0..80 => Some(0),
            80..110 => Some(1),
            110..125 => Some(2),
            _ if self.made[tenant][0] == 0 => Some(0),
            _ => None,
        };
        if let Some(topic) = new {
            self.made[tenant][topic] += 1;
            return (topic, self.made[tenant][topic]);
        }
        let leads = self.made[tenant][0];
        let age = (self.random.f64().powi(3) * leads as f64) as u64;
        (self.random.usize(3..TOPICS.len()), leads - age.min(leads - 1))
    }

    fn payload(&mut self, tenant: &str, kind: &str, id: u64) -> String {
        let second = self.number / 10;
        let name = NAMES[(id % 8) as usize];
        let mail = name.replace(' ', ".");
        let status = ["new", "contacted", "qualified", "won", "lost"][self.random.usize(0..5)];
        let mut payload = format!(
            r#"{{"tenant_id":"{tenant}","event_type":"{kind}","published_at":"2025-11-{:02}T{:02}:{:02}:{:02}Z","id":{id},"name":"{name}","email":"{mail}{id}@example.com","phone":"+43 316 {id:07}","source":"web","status":"{status}","assigned_to":"user-{}","notes":""#,
            second / 86_400 % 28 + 1,
            second / 3600 % 24,
            second / 60 % 60,
            second % 60,
            id % 40,
        );
        let from = self.random.usize(0..80);
        payload.push_str(&NOTES[from..from + PAYLOAD_BYTES - 2 - payload.len()]);
        payload.push_str("\"}");
        payload
    }
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let number = self.random.usize(0..TENANTS.len());
        let (topic, id) = self.choose(number);
        let (tenant, kind) = (TENANTS[number], TOPICS[topic].1);
        let payload = self.payload(tenant, kind, id);
        self.number += 1;
        let what = kind.split('.').next().expect("a type has two parts");
        Some(Record { tenant, topic, key: format!("{tenant}:{what}:{id}"), payload })
    }
}

//! The table of everything that the operators' API answers.

use super::call::{CURSOR, LIMIT, REASON};
use super::route::{Route, act, get};
use super::{audit, dlq, events, health, integrity, jobs, repair, replay, resume};

/// The first that fits is taken.
pub const ROUTES: &[Route] = &[
    get("/health", health::get, "Whether everything works, and if not, what does not").for_everybody(),
    get("/events/latest", events::latest, "The newest events, newest first").takes(&[&LIMIT]),
    get("/events/{id}", events::get, "Everything known of one event").takes(&[&events::ID]),
    act("/replay/batch", "replay.job", jobs::batch, "Replay a list of events, as a job")
        .takes(jobs::OPTIONS)
        .body()
        .idempotency_key(),
    act("/replay/range", "replay.job", jobs::range, "Replay the events of a time range, as a job")
        .takes(jobs::RANGE)
        .idempotency_key(),
    act("/replay/jobs", "replay.job", jobs::post, "Replay the events that a filter means, as a job")
        .takes(jobs::OPTIONS)
        .body()
        .idempotency_key(),
    get("/replay/jobs", jobs::list, "The newest jobs, newest first").takes(&[&jobs::STATE, &LIMIT]),
    get("/replay/jobs/{id}", jobs::get, "A job and how far it is").takes(&[&jobs::ID]),
    get("/replay/jobs/{id}/items", jobs::items, "What became of each event of a job").takes(&[
        &jobs::ID,
        &jobs::ITEM_STATE,
        &CURSOR,
        &LIMIT,
    ]),
    act("/replay/jobs/{id}/pause", "replay.job.pause", jobs::pause, "Let a job rest").takes(&[&jobs::ID, &REASON]),
    act("/replay/jobs/{id}/resume", "replay.job.resume", jobs::resume, "Let a job go on").takes(&[&jobs::ID, &REASON]),
    act("/replay/jobs/{id}/cancel", "replay.job.cancel", jobs::cancel, "End a job; what it has sent stays sent")
        .takes(&[&jobs::ID, &REASON]),
    act("/replay/jobs/{id}/retry-failed", "replay.job.retry-failed", jobs::retry_failed, "Send what failed once more")
        .takes(&[&jobs::ID, &jobs::UNCERTAIN, &REASON]),
    act("/replay/jobs/{id}/rate", "replay.job.rate", jobs::rate, "Make a job faster or slower").takes(&[
        &jobs::ID,
        &jobs::NEW_RATE_PER_S,
        &REASON,
    ]),
    act("/replay/{id}", "replay", replay::post, "Send one event to its topic again, and wait for the broker").takes(&[
        &events::ID,
        &replay::TO_TOPIC,
        &REASON,
    ]),
    get("/dlq", dlq::list, "The newest dead letters, newest first").takes(&[
        &dlq::TOPIC,
        &dlq::REASON,
        &dlq::SINCE,
        &dlq::UNTIL,
        &dlq::GROUP,
        &dlq::STATE,
        &CURSOR,
        &LIMIT,
    ]),
    get("/dlq/groups", dlq::groups, "Dead letters that failed alike, the largest group first").takes(&[&dlq::STATE]),
    act("/dlq/retry", "dlq.retry", repair::retry_filtered, "Try the dead letters that a filter means again")
        .takes(repair::FILTERED),
    act("/dlq/groups/{group}/retry", "dlq.retry", repair::retry_group, "Try the dead letters of a group again")
        .takes(&[&repair::GROUP_IN_PATH, &jobs::DRY_RUN, &repair::COUNT_CONFIRM, &REASON]),
    act("/dlq/groups/{group}/discard", "dlq.discard", repair::discard_group, "Set the dead letters of a group aside")
        .takes(&[&repair::GROUP_IN_PATH, &repair::COUNT_CONFIRM, &repair::WHY]),
    get("/dlq/{id}", dlq::get, "Everything known of one dead letter").takes(&[&dlq::ID]),
    act(
        "/dlq/{id}/retry",
        "dlq.retry",
        repair::retry,
        "Try a dead letter again, edited by a JSON Patch if one is given",
    )
    .takes(&[&dlq::ID, &repair::MODE, &repair::AGAIN, &jobs::DRY_RUN, &repair::EDIT_CONFIRM, &REASON])
    .body(),
    act("/dlq/{id}/discard", "dlq.discard", repair::discard, "Set a dead letter aside")
        .takes(&[&dlq::ID, &repair::WHY]),
    get("/audit", audit::list, "What operators did, or tried to, newest first").takes(&[
        &audit::ACTION,
        &dlq::SINCE,
        &CURSOR,
        &LIMIT,
    ]),
    get("/integrity", integrity::get, "Which offsets the journal holds, and why not the others")
        .takes(&[&dlq::TOPIC])
        .of_the_box(),
    act("/consumer/resume", "consumer.resume", resume::post, "Go on with partitions that were halted")
        .takes(&[&dlq::TOPIC, &resume::PARTITION, &REASON])
        .of_the_box(),
];

//! The table of everything that the operators' API answers.

use super::answer::Either;
use super::call::{CURSOR, LIMIT, REASON};
use super::integrity::Integrity;
use super::job_forms::{Batch, Body, JobView, Rehearsal, Started};
use super::removal_answers::{Erased, Erasing, ErasureRehearsal, PruneRehearsal, Pruned};
use super::repair_answers::*;
use super::route::{Route, act, get};
use super::{
    archive, audit, description, dlq, erase, events, export, health, integrity, jobs, prune, repair, replay, resume,
    search, storage,
};
use crate::removal::ArchivedFile;
use crate::store::{
    AuditRow, EventDetail, EventSummary, FoundEvent, JobItem, LetterDetail, LetterGroup, LetterSummary,
};

/// What makes a job shows its plan, the job as it ended, or that it runs; or it makes none.
type PlanOrJob = Either<Rehearsal, JobView>;

/// The first that fits is taken.
pub const ROUTES: &[Route] = &[
    get("/health", health::get, "Whether everything works, and if not, what does not")
        .gives::<health::State>(200)
        .gives::<health::State>(503)
        .for_everybody(),
    get("/openapi.json", description::openapi, "This description").gives::<description::OpenApi>(200).for_everybody(),
    get("/docs", description::docs, "This description, to be read").gives_files(&["text/html"]).for_everybody(),
    get("/events", search::list, "Find events by conditions, page by page, newest first")
        .takes(search::SEARCH)
        .gives::<search::Found<FoundEvent>>(200),
    get("/events/latest", events::latest, "The newest events, newest first")
        .takes(&[&LIMIT])
        .gives::<Vec<EventSummary>>(200),
    get("/events/{id}", events::get, "Everything known of one event").takes(&[&events::ID]).gives::<EventDetail>(200),
    get("/events/{id}/history", search::history, "Every event of an event's key, oldest first")
        .takes(search::HISTORY)
        .gives::<search::Found<search::Told>>(200),
    get("/export", export::get, "Everything that a search finds, as a file")
        .takes(export::EXPORT)
        .gives_files(&["application/x-ndjson", "text/csv", "application/vnd.sqlite3"])
        .may(&[429])
        .noted_as("export"),
    act("/replay/batch", "replay.job", jobs::batch, "Replay a list of events, as a job")
        .takes(jobs::OPTIONS)
        .body::<Batch>(r#"{"event_ids":[1,2,3]}"#)
        .idempotency_key()
        .gives::<PlanOrJob>(200)
        .gives::<Started>(202)
        .may(&[404, 409, 410]),
    act("/replay/range", "replay.job", jobs::range, "Replay the events of a time range, as a job")
        .takes(jobs::RANGE)
        .such_as(&[&jobs::START])
        .idempotency_key()
        .gives::<PlanOrJob>(200)
        .gives::<Started>(202)
        .may(&[404, 409, 410]),
    act("/replay/jobs", "replay.job", jobs::post, "Replay the events that a filter means, as a job")
        .takes(jobs::OPTIONS)
        .body::<Body>(r#"{"tenant_id":"acme","start":"2025-11-03","dry_run":true}"#)
        .idempotency_key()
        .gives::<PlanOrJob>(200)
        .gives::<Started>(202)
        .may(&[404, 409, 410]),
    get("/replay/jobs", jobs::list, "The newest jobs, newest first")
        .takes(&[&jobs::STATE, &LIMIT])
        .gives::<Vec<JobView>>(200),
    get("/replay/jobs/{id}", jobs::get, "A job and how far it is").takes(&[&jobs::ID]).gives::<JobView>(200),
    get("/replay/jobs/{id}/items", jobs::items, "What became of each event of a job")
        .takes(&[&jobs::ID, &jobs::ITEM_STATE, &CURSOR, &LIMIT])
        .gives::<Vec<JobItem>>(200),
    act("/replay/jobs/{id}/pause", "replay.job.pause", jobs::pause, "Let a job rest")
        .takes(&[&jobs::ID, &REASON])
        .gives::<JobView>(200)
        .may(&[409]),
    act("/replay/jobs/{id}/resume", "replay.job.resume", jobs::resume, "Let a job go on")
        .takes(&[&jobs::ID, &REASON])
        .gives::<JobView>(200)
        .may(&[409, 429]),
    act("/replay/jobs/{id}/cancel", "replay.job.cancel", jobs::cancel, "End a job; what it has sent stays sent")
        .takes(&[&jobs::ID, &REASON])
        .gives::<JobView>(200)
        .may(&[409]),
    act("/replay/jobs/{id}/retry-failed", "replay.job.retry-failed", jobs::retry_failed, "Send what failed once more")
        .takes(&[&jobs::ID, &jobs::UNCERTAIN, &REASON])
        .gives::<JobView>(200)
        .may(&[409, 429]),
    act("/replay/jobs/{id}/rate", "replay.job.rate", jobs::rate, "Make a job faster or slower")
        .takes(&[&jobs::ID, &jobs::NEW_RATE_PER_S, &REASON])
        .gives::<JobView>(200)
        .may(&[409]),
    act("/replay/{id}", "replay", replay::post, "Send one event to its topic again, and wait for the broker")
        .takes(&[&events::ID, &replay::TO_TOPIC, &REASON])
        .gives::<replay::Replayed>(200)
        .may(&[409, 410, 504]),
    get("/dlq", dlq::list, "The newest dead letters, newest first")
        .takes(dlq::FILTERS)
        .gives::<Vec<LetterSummary>>(200),
    get("/dlq/groups", dlq::groups, "Dead letters that failed alike, the largest group first")
        .takes(&[&dlq::STATE])
        .gives::<Vec<LetterGroup>>(200),
    act("/dlq/retry", "dlq.retry", repair::retry_filtered, "Try the dead letters that a filter means again")
        .takes(repair::FILTERED)
        .such_as(&[&repair::ERROR_REASON])
        .gives::<Either<RetriesRehearsal, Retries>>(200)
        .may(&[404, 409]),
    act("/dlq/groups/{group}/retry", "dlq.retry", repair::retry_group, "Try the dead letters of a group again")
        .takes(&[&repair::GROUP_IN_PATH, &jobs::DRY_RUN, &repair::COUNT_CONFIRM, &REASON])
        .gives::<Either<RetriesRehearsal, Retries>>(200)
        .may(&[409]),
    act("/dlq/groups/{group}/discard", "dlq.discard", repair::discard_group, "Set the dead letters of a group aside")
        .takes(&[&repair::GROUP_IN_PATH, &repair::COUNT_CONFIRM, &repair::WHY])
        .gives::<ManyDiscarded>(200)
        .may(&[409]),
    get("/dlq/{id}", dlq::get, "Everything known of one dead letter").takes(&[&dlq::ID]).gives::<LetterDetail>(200),
    act(
        "/dlq/{id}/retry",
        "dlq.retry",
        repair::retry,
        "Try a dead letter again, edited by a JSON Patch if one is given",
    )
    .takes(&[&dlq::ID, &repair::MODE, &repair::AGAIN, &jobs::DRY_RUN, &repair::EDIT_CONFIRM, &REASON])
    .patch::<repair::Patch>(r#"[{"op":"replace","path":"/name","value":"Ada"}]"#)
    .gives::<Either<RetryRehearsal, Either<Journaled, Republished>>>(200)
    .may(&[409, 504]),
    act("/dlq/{id}/discard", "dlq.discard", repair::discard, "Set a dead letter aside")
        .takes(&[&dlq::ID, &repair::WHY])
        .gives::<Discarded>(200)
        .may(&[409]),
    get("/audit", audit::list, "What operators did, or tried to, newest first")
        .takes(&[&audit::ACTION, &dlq::SINCE, &CURSOR, &LIMIT])
        .gives::<Vec<AuditRow>>(200),
    get("/integrity", integrity::get, "Which offsets the journal holds, and why not the others")
        .takes(&[&dlq::TOPIC])
        .gives::<Integrity>(200)
        .may(&[404])
        .of_the_box(),
    get("/storage", storage::get, "The journal's room, and how long it lasts")
        .gives::<storage::Storage>(200)
        .of_the_box(),
    get(
        "/archive",
        archive::list,
        "The files that events went to before they were deleted, in the order in which they were written",
    )
    .takes(&[&CURSOR, &LIMIT])
    .gives::<Vec<ArchivedFile>>(200),
    act("/prune", "prune", prune::post, "Delete the oldest events for good")
        .takes(&[&prune::UNTIL, &jobs::DRY_RUN, &prune::CONFIRM, &REASON])
        .gives::<Either<PruneRehearsal, Pruned>>(200)
        .may(&[404, 409, 429])
        .of_the_box()
        .for_admins(),
    act("/tenants/{tenant_id}/erase", "tenant.erase", erase::post, "Erase a tenant's data, or one key's, for good")
        .takes(&[&erase::TENANT, &erase::KEY, &jobs::DRY_RUN, &erase::CONFIRM, &erase::WHY])
        .gives::<Either<ErasureRehearsal, Erased>>(200)
        .gives::<Erasing>(202)
        .may(&[404, 409, 429])
        .for_admins(),
    act("/consumer/resume", "consumer.resume", resume::post, "Go on with partitions that were halted")
        .takes(&[&dlq::TOPIC, &resume::PARTITION, &REASON])
        .gives::<resume::Resumed>(200)
        .of_the_box(),
];

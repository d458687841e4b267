//! `storage`: the journal's room.

use std::process::ExitCode;

use clap::Args;

use super::api::ApiArgs;
use crate::client::storage;

#[derive(Args)]
pub struct StorageArgs {
    #[command(flatten)]
    api: ApiArgs,
}

pub fn run_storage(args: StorageArgs) -> ExitCode {
    args.api.run(storage::storage)
}

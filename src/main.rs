use std::process::ExitCode;

fn main() -> ExitCode {
    crm_events_sink::cli::main()
}

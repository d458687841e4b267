//! `user`: the people who may log in to the API.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::backup::print;
use super::load_config;
use crate::Failure;
use crate::auth::Role;
use crate::auth::users::{self, PASSWORD_MIN};
use crate::config::Overrides;

#[derive(Args)]
pub struct UserArgs {
    #[command(subcommand)]
    verb: Verb,
    /// The file of the users [default: api.auth.users_file of the configuration]
    #[arg(long, value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Add somebody, or give a new password, role or tenant; the password is asked for, or the first line of standard input
    Add {
        name: String,
        /// viewer: see; operator: also replay and repair; admin: also erase
        #[arg(long, value_parser = role)]
        role: Role,
        /// The only tenant that this one may see and touch [default: every one]
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Let somebody in no longer
    Remove { name: String },
    /// Who may log in, as what, for which tenant
    List,
}

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| "give viewer, operator or admin".to_owned())
}

/// A sink that runs takes the change on SIGHUP (`systemctl reload crm-events-sink`).
pub fn run_user(args: UserArgs) -> Result<(), Failure> {
    let path = match args.file {
        Some(path) => path,
        None => load_config(args.config.as_deref(), &Overrides::default())?.api.auth.users_file,
    };
    if path.as_os_str().is_empty() {
        let fix = "api.auth.users_file: names no file; set it, as \"/etc/crm-events-sink/users\", or give --file";
        return Err(Failure::Config(fix.to_owned()));
    }
    let reload = "a sink that runs takes it with: systemctl reload crm-events-sink";
    match args.verb {
        Verb::Add { name, role, tenant } => {
            users::check_name("name", &name).map_err(Failure::Config)?;
            users::put(&path, &name, role, tenant.as_deref(), &new_password(&name)?).map_err(Failure::Config)?;
            print(&format!("{name} may log in as {role}; {reload}\n"))?;
        }
        Verb::Remove { name } => {
            if !users::remove(&path, &name).map_err(Failure::Config)? {
                return Err(Failure::Config(format!("{}: has no {name:?}", path.display())));
            }
            print(&format!("{name} may not log in any more; {reload}\n"))?;
        }
        Verb::List => {
            for (name, role, tenant) in users::list(&path).map_err(Failure::Config)? {
                print(&format!("{name}\t{role}\t{}\n", tenant.as_deref().unwrap_or("(every tenant)")))?;
            }
        }
    }
    Ok(())
}

/// Asked for twice and not shown on a terminal; else one line.
fn new_password(name: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let first = rpassword::prompt_password(format!("New password of {name} ({PASSWORD_MIN} characters or more): "))?;
    let second = rpassword::prompt_password("Once more: ")?;
    if first != second {
        return Err(Failure::Config("these are two different passwords; nothing was changed".to_owned()));
    }
    Ok(first)
}

//! Who is let in, by what a request's `Authorization` says; and how often somebody may try.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};

use super::tokens::Tokens;
use super::users::Users;
use super::{Principal, Role};
use crate::config::{self, Config};

/// How long a password that was right is not checked again: a check takes some 20 ms of one core.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Passwords that are remembered at most.
const REMEMBERED_MAX: usize = 1000;
/// Attempts from one address, as a multiple of those for one name.
const NAMES_PER_ADDRESS: u32 = 3;
/// Names and addresses that a limit keeps in mind before it forgets those that are at rest.
const KEYS_MAX: usize = 10_000;

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("this needs credentials: {schemes}")]
    Missing { schemes: String },
    #[error("these credentials are not right: {why}")]
    Wrong { why: String, schemes: String },
    #[error("too many attempts that failed; wait {seconds} s")]
    TooMany { seconds: u64 },
}

/// So many a minute, for each of many.
struct Limit(DefaultKeyedRateLimiter<u64>);

impl Limit {
    fn per_minute(most: u32) -> Limit {
        Limit(RateLimiter::keyed(Quota::per_minute(NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN))))
    }

    /// Counts one more of `key`; where that is too many, after how many seconds it will not be.
    fn count(&self, key: u64) -> Result<(), u64> {
        if self.0.len() > KEYS_MAX {
            self.0.retain_recent();
        }
        self.0.check_key(&key).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + 1
        })
    }
}

/// What is re-read while the sink runs.
#[derive(Default)]
struct Known {
    users: Users,
    tokens: Option<Tokens>,
}

impl Known {
    fn read(auth: &config::Auth) -> Result<Known, String> {
        let users = if auth.has_users() { Users::read(&auth.users_file)? } else { Users::default() };
        Ok(Known { users, tokens: Tokens::read(auth)? })
    }
}

/// Decides who is let in.
pub struct Gate {
    auth: config::Auth,
    /// Whoever reaches the API, where nobody has to say who it is.
    anybody: Option<Principal>,
    known: RwLock<Known>,
    /// Passwords that were right, as a hash that holds in this process only.
    remembered: Mutex<HashMap<[u8; 32], (Principal, Instant)>>,
    secret: [u8; 32],
    /// Checks of passwords take their turn: each needs 19 MiB.
    turn: Mutex<()>,
    hasher: RandomState,
    names: Limit,
    addresses: Limit,
    replays: RwLock<Limit>,
}

impl Gate {
    /// # Errors
    /// Users or keys cannot be read.
    pub fn new(config: &Config) -> Result<Gate, String> {
        let auth = config.api.auth.clone();
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| format!("no random numbers from the system: {error}"))?;
        Ok(Gate {
            anybody: anybody(config),
            known: RwLock::new(Known::read(&auth)?),
            remembered: Mutex::default(),
            secret,
            turn: Mutex::default(),
            hasher: RandomState::new(),
            names: Limit::per_minute(auth.failures_per_minute),
            addresses: Limit::per_minute(auth.failures_per_minute * NAMES_PER_ADDRESS),
            replays: RwLock::new(Limit::per_minute(config.api.replays_per_minute)),
            auth,
        })
    }

    /// Another `api.replays_per_minute`. What was counted under the old one is forgotten.
    pub fn limit_replays(&self, per_minute: u32) {
        *self.replays.write().unwrap_or_else(PoisonError::into_inner) = Limit::per_minute(per_minute);
    }

    /// Reads users and keys again; those of before stay where the new ones are wrong.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn reload(&self) -> Result<String, String> {
        let known = Known::read(&self.auth)?;
        let now = format!(
            "{} users, {} keys for tokens",
            known.users.count(),
            known.tokens.as_ref().map_or(0, Tokens::count)
        );
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *all = known;
        lock(&self.remembered).clear();
        Ok(now)
    }

    /// Who asks from `origin`, by what `Authorization` says; `None` where somebody should have said, and did not.
    ///
    /// # Errors
    /// What was said is wrong, or was wrong too often.
    pub fn admit(&self, authorization: Option<&str>, origin: &str) -> Result<Option<Principal>, AuthError> {
        if let Some(anybody) = &self.anybody {
            return Ok(Some(anybody.clone()));
        }
        let Some(authorization) = authorization else { return Ok(None) };
        let (scheme, said) = authorization.split_once(' ').unwrap_or((authorization, ""));
        let said = said.trim();
        if scheme.eq_ignore_ascii_case("basic") && self.auth.has_users() {
            return self.admit_user(said, origin).map(Some);
        }
        if scheme.eq_ignore_ascii_case("bearer") && self.auth.has_tokens() {
            return self.admit_token(said, origin).map(Some);
        }
        Err(self.wrong("that way of logging in is not taken here"))
    }

    fn admit_user(&self, said: &str, origin: &str) -> Result<Principal, AuthError> {
        let decoded = BASE64.decode(said).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((name, password)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) else {
            return Err(self.wrong("Basic must be name:password in Base64 (RFC 7617)"));
        };
        let remembered = self.remember_as(name, password);
        if let Some((principal, until)) = lock(&self.remembered).get(&remembered)
            && Instant::now() < *until
        {
            return Ok(principal.clone());
        }
        self.count_attempt(name, origin)?;
        let turn = lock(&self.turn);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let principal = known.users.verify(name, password);
        drop(turn);
        let principal = principal.ok_or_else(|| self.wrong("no such user, or another password"))?;
        // Users that are read again meanwhile wait for `known`, and forget this one.
        let mut all = lock(&self.remembered);
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(remembered, (principal.clone(), Instant::now() + REMEMBERED));
        Ok(principal)
    }

    fn admit_token(&self, token: &str, origin: &str) -> Result<Principal, AuthError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let verified = known.tokens.as_ref().map(|tokens| tokens.verify(token));
        match verified {
            Some(Ok(principal)) => Ok(principal),
            Some(Err(why)) => {
                self.count_attempt("", origin)?;
                Err(self.wrong(&why))
            }
            None => Err(self.wrong("no tokens are taken here")),
        }
    }

    fn remember_as(&self, name: &str, password: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update(password);
        hash.finalize().into()
    }

    fn count_attempt(&self, name: &str, origin: &str) -> Result<(), AuthError> {
        let counted = self.names.count(self.hasher.hash_one((origin, name)));
        let counted = counted.and_then(|()| self.addresses.count(self.hasher.hash_one(origin)));
        counted.map_err(|seconds| AuthError::TooMany { seconds })
    }

    /// Counts a request that replays; `Err`: it is one too many, and after how many seconds it will not be.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn count_replay(&self, principal: &Principal, origin: &str) -> Result<(), u64> {
        let replays = self.replays.read().unwrap_or_else(PoisonError::into_inner);
        replays.count(self.hasher.hash_one((principal.name.as_deref(), &principal.tenant, origin)))
    }

    pub fn missing(&self) -> AuthError {
        AuthError::Missing { schemes: self.schemes() }
    }

    fn wrong(&self, why: &str) -> AuthError {
        AuthError::Wrong { why: why.to_owned(), schemes: self.schemes() }
    }

    /// What `WWW-Authenticate` says (RFC 9110, 11.6.1).
    fn schemes(&self) -> String {
        let basic = self.auth.has_users().then_some("Basic realm=\"crm-events-sink\", charset=\"UTF-8\"");
        let bearer = self.auth.has_tokens().then_some("Bearer realm=\"crm-events-sink\"");
        basic.into_iter().chain(bearer).collect::<Vec<_>>().join(", ")
    }
}

/// Without users and tokens, whoever is on this box may everything; whoever is on a network that was said to be
/// trusted may not take data out of the journal for good.
fn anybody(config: &Config) -> Option<Principal> {
    let role = if config.api.listen.ip().is_loopback() { Role::Admin } else { Role::Operator };
    (!config.api.auth.is_on()).then_some(Principal { name: None, role, tenant: None })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

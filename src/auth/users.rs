//! People who log in by name and password: the file that has them, and how a password is checked.
//!
//! One line a person, `name:role:tenant:hash`; no tenant means every one. Empty lines and those that begin with `#` are
//! left alone. The hash is Argon2id in the PHC string format
//! (<https://github.com/P-H-C/phc-string-format/blob/master/phc-sf-spec.md>).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use super::{Principal, Role, refuse_readable_by_others};

/// Users in the file, and characters of a name or a tenant, at most.
const USERS_MAX: usize = 10_000;
const NAME_MAX: usize = 100;
/// Characters of a new password at least, and of any at most.
pub const PASSWORD_MIN: usize = 10;
const PASSWORD_MAX: usize = 1024;

/// What a password is checked against when the name is unknown, so that the time it takes does not tell.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZSBzYWx0IG9mIG91cnM$Kxk0bGYvqFQ4M0Vb0W4xOkIfmmcmVu1n3r8u5D4Xj8A";

#[derive(Debug)]
struct User {
    role: Role,
    tenant: Option<String>,
    hash: PasswordHash,
}

/// The users of one file.
#[derive(Debug, Default)]
pub struct Users(BTreeMap<String, User>);

impl Users {
    /// # Errors
    /// The file cannot be read, can be read by everybody, or a line is wrong; no error shows a hash.
    pub fn read(path: &Path) -> Result<Users, String> {
        let at = path.display();
        let text = fs::read_to_string(path).map_err(|error| {
            format!(
                "{at}: cannot read the users: {error}; make one with: crm-events-sink user add NAME --role operator"
            )
        })?;
        refuse_readable_by_others(path)?;
        let mut users = Users::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| is_user(line)) {
            let (name, user) = user(line).map_err(|what| format!("{at}, line {}: {what}", number + 1))?;
            if users.0.insert(name.to_owned(), user).is_some() {
                return Err(format!("{at}, line {}: {name:?} is there twice; remove one", number + 1));
            }
        }
        if users.0.len() > USERS_MAX {
            return Err(format!("{at}: has more than {USERS_MAX} users"));
        }
        Ok(users)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Who that is, if the password is right. Takes some 20 ms and 19 MiB.
    pub fn verify(&self, name: &str, password: &str) -> Option<Principal> {
        if password.chars().count() > PASSWORD_MAX {
            return None;
        }
        let user = self.0.get(name);
        let nobodys = PasswordHash::new(NOBODYS).ok();
        let hash = user.map(|user| &user.hash).or(nobodys.as_ref())?;
        let is_right = Argon2::default().verify_password(password.as_bytes(), hash).is_ok();
        let user = user.filter(|_| is_right)?;
        Some(Principal { name: Some(name.to_owned()), role: user.role, tenant: user.tenant.clone() })
    }
}

fn is_user(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#')
}

fn user(line: &str) -> Result<(&str, User), String> {
    let form = "must be name:role:tenant:hash, as crm-events-sink user writes it";
    let parts: Vec<&str> = line.splitn(4, ':').collect();
    let [name, role, tenant, hash] = parts[..] else { return Err(form.to_owned()) };
    check_name("name", name)?;
    let role =
        Role::from_name(role).ok_or_else(|| format!("{role:.40?} is no role; give viewer, operator or admin"))?;
    let hash = PasswordHash::new(hash).map_err(|_| form.to_owned())?;
    Ok((name, User { role, tenant: Some(tenant.to_owned()).filter(|tenant| !tenant.is_empty()), hash }))
}

/// # Errors
/// If that is no name for a person, or no tenant.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let is_wrong = |c: char| c == ':' || c.is_control();
    if name.is_empty() || name.chars().count() > NAME_MAX || name.starts_with('#') || name.contains(is_wrong) {
        return Err(format!(
            "{name:.100?} is no {what}; give 1 to {NAME_MAX} characters without ':', not beginning with '#'"
        ));
    }
    Ok(())
}

/// Puts a user into the file, in the place of one of the same name.
///
/// # Errors
/// A name, tenant or password that is none; or the file cannot be read or written.
pub fn put(path: &Path, name: &str, role: Role, tenant: Option<&str>, password: &str) -> Result<(), String> {
    check_name("name", name)?;
    tenant.map_or(Ok(()), |tenant| check_name("tenant", tenant))?;
    let length = password.chars().count();
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&length) {
        return Err(format!("the password has {length} characters; give {PASSWORD_MIN} to {PASSWORD_MAX}"));
    }
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).map_err(|error| error.to_string())?;
    let mut lines = lines_without(path, name)?.0;
    lines.push(format!("{name}:{role}:{}:{hash}", tenant.unwrap_or_default()));
    write(path, &lines).map_err(|error| format!("{}: cannot write the users: {error}", path.display()))
}

/// Takes a user out of the file; whether there was one.
///
/// # Errors
/// The file cannot be read or written.
pub fn remove(path: &Path, name: &str) -> Result<bool, String> {
    let (lines, found) = lines_without(path, name)?;
    if found {
        write(path, &lines).map_err(|error| format!("{}: cannot write the users: {error}", path.display()))?;
    }
    Ok(found)
}

/// `name`, `role` and `tenant` of each.
///
/// # Errors
/// As [`Users::read`].
pub fn list(path: &Path) -> Result<Vec<(String, Role, Option<String>)>, String> {
    let users = Users::read(path)?.0;
    Ok(users.into_iter().map(|(name, user)| (name, user.role, user.tenant)).collect())
}

fn lines_without(path: &Path, name: &str) -> Result<(Vec<String>, bool), String> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| format!("{}: cannot read the users: {error}", path.display()))?,
    };
    let all: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_other = |line: &String| !is_user(line) || line.split(':').next() != Some(name);
    let others: Vec<String> = all.iter().filter(|line| is_other(line)).cloned().collect();
    let found = others.len() < all.len();
    Ok((others, found))
}

/// The whole file at once: a reader sees the old one or the new one. It stays whose it was; a new one is its folder's
/// group's, so that the service can read what root has made.
fn write(path: &Path, lines: &[String]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (uid, gid, mode) = match fs::metadata(path) {
        Ok(old) => (old.uid(), old.gid(), old.mode() & 0o770),
        Err(_) => (fs::metadata(folder)?.uid(), fs::metadata(folder)?.gid(), 0o640),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    let own = file.as_file().metadata()?;
    if (own.uid(), own.gid()) != (uid, gid) {
        fchown(file.as_file(), Some(uid), Some(gid))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_checked_against_the_hash_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        put(&path, "anna", Role::Operator, Some("acme"), "right horse").unwrap();
        put(&path, "ben", Role::Admin, None, "battery staple").unwrap();
        put(&path, "anna", Role::Viewer, Some("acme"), "another horse").unwrap();
        let users = Users::read(&path).unwrap();
        let anna = Principal { name: Some("anna".into()), role: Role::Viewer, tenant: Some("acme".into()) };
        assert_eq!(users.verify("anna", "another horse"), Some(anna));
        for (name, password) in
            [("anna", "right horse"), ("anna", ""), ("ben", "another horse"), ("eve", "right horse")]
        {
            assert_eq!(users.verify(name, password), None, "{name} {password}");
        }
        assert!(remove(&path, "ben").unwrap() && !remove(&path, "ben").unwrap());
        assert_eq!(list(&path).unwrap(), [("anna".to_owned(), Role::Viewer, Some("acme".to_owned()))]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn the_hash_for_unknown_names_is_one() {
        assert!(PasswordHash::new(NOBODYS).is_ok());
    }

    #[test]
    fn a_mistake_in_the_file_names_the_line_and_not_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        put(&path, "anna", Role::Operator, None, "right horse").unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (wrong, says) in [
            ("ben:operator:$argon2id$x", "must be name:role:tenant:hash"),
            ("ben:owner::$argon2id$v=19$m=19456,t=2,p=1$c29tZSBzYWx0$aaaa", "\"owner\" is no role"),
            ("ben:viewer::hunter2", "must be name:role:tenant:hash"),
            (good.trim_end(), "\"anna\" is there twice"),
        ] {
            fs::write(&path, format!("# people\n{good}\n{wrong}\n")).unwrap();
            let error = Users::read(&path).unwrap_err();
            assert!(error.contains("users, line 4: ") && error.contains(says), "{error}");
            assert!(!error.contains("argon2id") && !error.contains("hunter2"), "{error}");
        }
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Users::read(&path).unwrap_err().contains("chmod 0640"));
    }
}

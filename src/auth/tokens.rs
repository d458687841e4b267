//! Bearer tokens: JSON Web Tokens (RFC 7519) that somebody else has issued, as RFC 8725 wants them checked: one
//! algorithm, chosen here and not by the token; issuer, audience and expiry always.

use std::fs;
use std::path::Path;

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::{Principal, Role, refuse_readable_by_others};
use crate::config::{Auth, JwtAlgorithm};

/// Bytes of a secret at least: as many as HS256's hash has (RFC 7518, 3.2).
const SECRET_MIN: usize = 32;
/// Keys of a JWKS at most.
const KEYS_MAX: usize = 100;

/// What a token says.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    role: String,
    tenant_id: Option<String>,
}

/// The keys by which tokens are checked, and what else they must say.
pub struct Tokens {
    /// With its `kid`, where it has one.
    keys: Vec<(Option<String>, DecodingKey)>,
    validation: Validation,
}

impl Tokens {
    /// # Errors
    /// The keys cannot be read, or there is none for the algorithm.
    pub fn read(auth: &Auth) -> Result<Option<Tokens>, String> {
        let (algorithm, key_algorithm) = match auth.jwt_algorithm {
            JwtAlgorithm::None => return Ok(None),
            JwtAlgorithm::HS256 => (Algorithm::HS256, KeyAlgorithm::HS256),
            JwtAlgorithm::RS256 => (Algorithm::RS256, KeyAlgorithm::RS256),
            JwtAlgorithm::ES256 => (Algorithm::ES256, KeyAlgorithm::ES256),
        };
        let path = auth.jwt_key_file.as_path();
        let keys = if algorithm == Algorithm::HS256 { secret(path)? } else { public_keys(path, key_algorithm)? };
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&auth.jwt_issuer]);
        validation.set_audience(&[&auth.jwt_audience]);
        validation.leeway = auth.jwt_leeway.as_secs();
        validation.validate_nbf = true;
        Ok(Some(Tokens { keys, validation }))
    }

    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Who that is.
    ///
    /// # Errors
    /// Says why the token is not taken; never what is in it.
    pub fn verify(&self, token: &str) -> Result<Principal, String> {
        let kid = decode_header(token).map_err(|error| error.to_string())?.kid;
        let fitting = self.keys.iter().filter(|(own, _)| own.is_none() || kid.is_none() || *own == kid);
        let mut why = "no key has the token's kid".to_owned();
        for (_, key) in fitting {
            match decode::<Claims>(token, key, &self.validation) {
                Ok(token) => return principal(token.claims),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }
}

fn principal(claims: Claims) -> Result<Principal, String> {
    let role = Role::from_name(&claims.role).ok_or("its role is none of viewer, operator and admin")?;
    if claims.sub.trim().is_empty() || claims.tenant_id.as_ref().is_some_and(String::is_empty) {
        return Err("its sub or tenant_id is empty".to_owned());
    }
    let name = claims.sub.chars().take(100).collect();
    Ok(Principal { name: Some(name), role, tenant: claims.tenant_id })
}

fn secret(path: &Path) -> Result<Vec<(Option<String>, DecodingKey)>, String> {
    refuse_readable_by_others(path)?;
    let secret = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let secret = secret.trim_ascii_end();
    if secret.len() < SECRET_MIN {
        return Err(format!(
            "{}: the secret has {} bytes; give {SECRET_MIN} or more, as: openssl rand -hex 32",
            path.display(),
            secret.len()
        ));
    }
    Ok(vec![(None, DecodingKey::from_secret(secret))])
}

fn public_keys(path: &Path, algorithm: KeyAlgorithm) -> Result<Vec<(Option<String>, DecodingKey)>, String> {
    let at = path.display();
    let text = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let set: JwkSet = serde_json::from_slice(&text)
        .map_err(|error| format!("{at}: is no JWKS (RFC 7517), as {{\"keys\":[…]}}: {error}"))?;
    let fitting: Vec<&Jwk> = set.keys.iter().filter(|key| fits(key, algorithm)).take(KEYS_MAX).collect();
    if fitting.is_empty() {
        return Err(format!("{at}: has no key for {algorithm}; give the issuer's JWKS, or set api.auth.jwt_algorithm"));
    }
    let read = |key: &&Jwk| {
        let decoding = DecodingKey::from_jwk(key).map_err(|error| format!("{at}: a key is not usable: {error}"))?;
        Ok((key.common.key_id.clone(), decoding))
    };
    fitting.iter().map(read).collect()
}

/// A key for signatures of that algorithm; one that does not say which is for its type's.
fn fits(key: &Jwk, algorithm: KeyAlgorithm) -> bool {
    use jsonwebtoken::jwk::{AlgorithmParameters, PublicKeyUse};
    let is_type = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), KeyAlgorithm::RS256) => true,
        (AlgorithmParameters::EllipticCurve(curve), KeyAlgorithm::ES256) => {
            curve.curve == jsonwebtoken::jwk::EllipticCurve::P256
        }
        _ => false,
    };
    let is_for_signatures =
        key.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    is_type && is_for_signatures && key.common.key_algorithm.is_none_or(|own| own == algorithm)
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{}: cannot read the key: {error}; see api.auth.jwt_key_file", path.display())
}

//! Bearer tokens, true and forged.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::access::LEADS;
use crate::harness::{Embedded, Sender, Setup, Sink, curl};

const SECRET: &str = "a secret of thirty-two bytes, or more";

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn claims() -> Value {
    json!({"sub": "mailer", "iss": "https://login.example.com", "aud": "crm-events-sink", "exp": now() + 600, "role": "operator"})
}

/// The same with some of it changed; `null` takes it out.
fn claims_with(changed: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changed.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn signed(algorithm: Algorithm, key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, key).unwrap()
}

/// A private key made by openssl.
fn openssl(folder: &Path, name: &str, arguments: &[&str]) -> Vec<u8> {
    let file = folder.join(name);
    let made = Command::new("openssl").args(arguments).arg("-out").arg(&file).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read(file).unwrap()
}

fn rsa(folder: &Path, name: &str) -> EncodingKey {
    let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    EncodingKey::from_rsa_pem(&openssl(folder, name, &arguments)).unwrap()
}

fn ec(folder: &Path, name: &str) -> EncodingKey {
    let arguments = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    EncodingKey::from_ec_pem(&openssl(folder, name, &arguments)).unwrap()
}

fn jwks(keys: &[(&EncodingKey, Algorithm, &str)]) -> String {
    let jwk = |(key, algorithm, kid): &(&EncodingKey, Algorithm, &str)| {
        let mut jwk = Jwk::from_encoding_key(key, *algorithm).unwrap();
        jwk.common.key_id = Some((*kid).to_owned());
        jwk
    };
    serde_json::to_string(&JwkSet { keys: keys.iter().map(jwk).collect() }).unwrap()
}

/// A sink that takes tokens of one algorithm.
fn sink_taking(algorithm: &str, key: &str) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let file = tempfile::tempdir().unwrap().keep().join("key");
    fs::write(&file, key).unwrap();
    Command::new("chmod").arg("0640").arg(&file).status().unwrap();
    let toml = format!(
        "api.auth.jwt_algorithm = {algorithm:?}\napi.auth.jwt_key_file = {file:?}\napi.auth.jwt_issuer = \"https://login.example.com\"\n\
         api.auth.jwt_audience = \"crm-events-sink\"\napi.auth.jwt_leeway = \"10s\"\napi.auth.failures_per_minute = 1000\n"
    );
    let sink = Setup::with(&broker.bootstrap()).toml(&toml).start();
    sender.event(LEADS, "acme", 1);
    sender.event(LEADS, "globex", 2);
    sink.await_events(2);
    (broker, sink)
}

fn status(sink: &Sink, token: &str) -> u16 {
    curl(&["-H", &format!("Authorization: Bearer {token}"), &format!("http://{}/events/2", sink.api)]).status
}

#[test]
fn a_token_is_who_it_says_and_a_forged_one_is_nobody() {
    let (_broker, sink) = sink_taking("HS256", SECRET);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = |changed: Value| signed(Algorithm::HS256, &key, None, &claims_with(changed));
    assert_eq!(status(&sink, &token(json!({}))), 200);
    assert_eq!(status(&sink, &token(json!({"exp": now() - 5}))), 200, "clocks may differ by ten seconds");
    assert_eq!(status(&sink, &token(json!({"aud": ["other", "crm-events-sink"]}))), 200);
    assert_eq!(status(&sink, &token(json!({"tenant_id": "acme"}))), 404, "event 2 is another tenant's");
    for wrong in [
        json!({"exp": now() - 60}),
        json!({"exp": null}),
        json!({"exp": "never"}),
        json!({"nbf": now() + 60}),
        json!({"aud": "somebody else"}),
        json!({"aud": null}),
        json!({"iss": "https://login.evil.example"}),
        json!({"iss": null}),
        json!({"sub": null}),
        json!({"sub": " "}),
        json!({"role": null}),
        json!({"role": "owner"}),
        json!({"role": ["admin"]}),
        json!({"tenant_id": ""}),
        json!({"tenant_id": 7}),
    ] {
        assert_eq!(status(&sink, &token(wrong.clone())), 401, "{wrong}");
    }
    let other = EncodingKey::from_secret(b"another secret of thirty-two bytes!!");
    assert_eq!(status(&sink, &signed(Algorithm::HS256, &other, None, &claims())), 401);
    assert_eq!(status(&sink, &signed(Algorithm::HS512, &key, None, &claims())), 401, "another algorithm, the same key");

    let good = token(json!({}));
    let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let none = BASE64URL.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let admin = BASE64URL.encode(claims_with(json!({"role": "admin"})).to_string());
    for forged in [
        format!("{none}.{body}."),
        format!("{none}.{body}.{signature}"),
        format!("{head}.{admin}.{signature}"),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        format!("{good}x"),
        format!("{}.{body}.{signature}", BASE64URL.encode(r#"{"alg":"None"}"#)),
        String::new(),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(status(&sink, &forged), 401, "{forged}");
    }
    let acme = token(json!({"tenant_id": "acme"}));
    let replay = |id| {
        let bearer = format!("Authorization: Bearer {acme}");
        curl(&["-X", "POST", "-H", &bearer, &format!("http://{}/replay/{id}", sink.api)]).status
    };
    assert_eq!((replay(1), replay(2)), (200, 404));
    let operator: String = sink.value("SELECT operator || ' ' || tenant_id FROM audit WHERE outcome = 'done'");
    assert_eq!(operator, "mailer acme");
}

#[test]
fn public_keys_check_signatures_and_are_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, strange) = (rsa(folder.path(), "1"), rsa(folder.path(), "2"), rsa(folder.path(), "3"));
    let set = jwks(&[(&one, Algorithm::RS256, "2025"), (&two, Algorithm::RS256, "2026")]);
    let (_broker, sink) = sink_taking("RS256", &set);
    let token = |key: &EncodingKey, kid: Option<&str>| signed(Algorithm::RS256, key, kid, &claims());
    assert_eq!(status(&sink, &token(&one, Some("2025"))), 200);
    assert_eq!(status(&sink, &token(&two, Some("2026"))), 200);
    assert_eq!(status(&sink, &token(&two, None)), 200, "a token need not name its key");
    assert_eq!(status(&sink, &token(&two, Some("2025"))), 401);
    assert_eq!(status(&sink, &token(&one, Some("2027"))), 401);
    assert_eq!(status(&sink, &token(&strange, Some("2025"))), 401);
    // The public key as the secret of an HS256 signature: known to everybody.
    let keys: Value = serde_json::from_str(&set).unwrap();
    for public in [set.clone(), keys["keys"][0].to_string(), keys["keys"][0]["n"].as_str().unwrap().to_owned()] {
        let confused = EncodingKey::from_secret(public.as_bytes());
        assert_eq!(status(&sink, &signed(Algorithm::HS256, &confused, Some("2025"), &claims())), 401);
    }
    assert_eq!(status(&sink, &signed(Algorithm::RS512, &one, Some("2025"), &claims())), 401);
}

#[test]
fn elliptic_curves_too() {
    let folder = tempfile::tempdir().unwrap();
    let (own, strange) = (ec(folder.path(), "1"), ec(folder.path(), "2"));
    let (_broker, sink) = sink_taking("ES256", &jwks(&[(&own, Algorithm::ES256, "k")]));
    assert_eq!(status(&sink, &signed(Algorithm::ES256, &own, Some("k"), &claims())), 200);
    assert_eq!(status(&sink, &signed(Algorithm::ES256, &strange, Some("k"), &claims())), 401);
}

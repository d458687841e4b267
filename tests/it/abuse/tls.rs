//! The API by HTTPS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::client::{Client, statuses};
use crate::harness::{Embedded, Setup, Sink, eventually, program};

const LEADS: &str = "apexflow.leads.created";

/// An authority, and the files that the sink reads.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { folder: tempfile::tempdir().unwrap(), issuer };
        fs::write(authority.file("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a new pair; its key's text.
    fn issue(&self) -> String {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file("cert.pem"), certificate.pem()).unwrap();
        write_key(&self.file("key.pem"), &key.serialize_pem());
        key.serialize_pem()
    }

    fn toml(&self) -> String {
        format!("api.tls.certificate = {:?}\napi.tls.key = {:?}\n", self.file("cert.pem"), self.file("key.pem"))
    }

    fn curl(&self, sink: &Sink, path: &str) -> Output {
        let url = format!("https://{}{path}", sink.api);
        Command::new("curl").args(["-sS", "--max-time", "20", "--cacert", &self.file("ca.pem"), &url]).output().unwrap()
    }
}

fn write_key(path: &str, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn start(authority: &Authority, more: &str) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).toml(&format!("{more}\n{}", authority.toml())).start();
    (broker, sink)
}

/// What is shown to a client: the certificate in PEM form, or nothing if the handshake failed.
fn shown(sink: &Sink, options: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &sink.api]).args(options).stdin(Stdio::null());
    let said = String::from_utf8_lossy(&openssl.output().unwrap().stdout).into_owned();
    let begin = "-----BEGIN CERTIFICATE-----";
    said.split_once(begin).map_or_else(String::new, |(_, rest)| rest.split("-----END").next().unwrap().to_owned())
}

fn certificate(authority: &Authority) -> String {
    let pem = fs::read_to_string(authority.file("cert.pem")).unwrap().replace('\r', "");
    pem.split("-----").nth(2).unwrap().to_owned()
}

#[test]
fn the_api_speaks_tls_1_2_and_later_and_a_new_pair_is_taken_on_sighup() {
    let authority = Authority::new();
    let first_key = authority.issue();
    let (_broker, mut sink) = start(&authority, "");
    eventually("curl trusts it", || authority.curl(&sink, "/health").stdout.starts_with(br#"{"status":"healthy""#));
    let first = certificate(&authority);
    for (options, is_taken) in [
        (&["-tls1_2"][..], true),
        (&["-tls1_3"], true),
        (&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], false),
        (&["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"], false),
    ] {
        assert_eq!(shown(&sink, options) == first, is_taken, "{options:?}");
    }

    let second_key = authority.issue();
    sink.signal("HUP");
    eventually("the new pair is shown", || shown(&sink, &[]) == certificate(&authority));
    assert_ne!(certificate(&authority), first);

    // A key that is not the certificate's: the old pair stays.
    let kept = certificate(&authority);
    write_key(&authority.file("key.pem"), &first_key);
    sink.signal("HUP");
    eventually("the broken pair is logged", || sink.log().contains("the old stays in force"));
    assert_eq!(shown(&sink, &[]), kept);
    write_key(&authority.file("key.pem"), &second_key.replace("BEGIN PRIVATE", "BEGIN PRIVAT"));
    sink.signal("HUP");
    eventually("so is a broken file", || sink.log().contains("holds no private key"));
    assert_eq!(shown(&sink, &[]), kept);
    assert_eq!(authority.curl(&sink, "/events/latest").stdout, b"[]");
    for key in [first_key, second_key] {
        let secret = key.lines().nth(1).unwrap();
        assert!(!sink.log().contains(secret), "the key is in the log");
    }
    assert_eq!(sink.stop(), Some(0), "SIGHUP does not stop it");
}

#[test]
fn what_is_no_tls_or_stalls_in_the_handshake_holds_nobody_up() {
    let authority = Authority::new();
    authority.issue();
    let (_broker, sink) = start(&authority, "http.head_timeout = '1s'");
    assert!(statuses(&Client::to(&sink.api).get("/health")).is_empty());
    let mut stalled: Vec<Client> = (0..200).map(|_| Client::to(&sink.api)).collect();
    for client in &mut stalled {
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").ok();
    }
    assert!(authority.curl(&sink, "/health").stdout.starts_with(br#"{"status":"#));
    let too_slow = r#"crm_events_http_refused_total{port="api",reason="tls_too_slow"}"#;
    eventually("they are cut off", || sink.metric(too_slow) > 0.0);
    eventually("nobody is left", || sink.metric(r#"crm_events_http_connections{port="api"}"#) == 0.0);
    eventually("the sink reaches itself by TLS", || sink.metric("crm_events_http_probe_seconds") > 0.0);
    assert_eq!(sink.metric("crm_events_http_probe_failures_total"), 0.0);
    assert!(!sink.log().contains("panicked"));
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_at_the_start_with_the_fix() {
    let authority = Authority::new();
    let key = authority.issue();
    let path = authority.file("key.pem");
    let refusal = || {
        let config = Path::new(authority.folder.path()).join("config.toml");
        fs::write(&config, authority.toml()).unwrap();
        let refused = program().arg("check-config").arg("--config").arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
        assert!(!said.contains(key.lines().nth(1).unwrap()), "the key is shown");
        (refused.status.code(), said)
    };
    assert_eq!(refusal().0, Some(0));
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let (code, said) = refusal();
    assert!(code == Some(78) && said.contains("chmod o-rwx"), "{said}");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(refusal().0, Some(0), "a group of its own may read it");
    write_key(&path, &KeyPair::generate().unwrap().serialize_pem());
    let (code, said) = refusal();
    assert!(code == Some(78) && said.contains("is not that of the certificate"), "{said}");
    fs::remove_file(&path).unwrap();
    let (code, said) = refusal();
    assert!(code == Some(78) && said.contains("api.tls.key: cannot read"), "{said}");
}

#[test]
fn the_shells_verbs_go_by_https_and_believe_the_authority_alone() {
    let authority = Authority::new();
    authority.issue();
    let (_broker, sink) = start(&authority, "");
    let api = format!("https://{}", sink.api);
    let events = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut verb = program();
        verb.env_remove("CRM_EVENTS_SINK_CA").envs(environment.iter().copied());
        let ran = verb.args(["events", "--json"]).args(arguments).output().unwrap();
        let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
        (ran.status.code(), out.trim().to_owned(), err)
    };
    let ca = authority.file("ca.pem");
    assert_eq!(events(&["--api", &api, "--ca", &ca], &[]), (Some(0), "[]".to_owned(), String::new()));
    assert_eq!(events(&["--api", &api], &[("CRM_EVENTS_SINK_CA", &ca)]).0, Some(0));
    // The configuration names the address, and a file with the chain up to the authority.
    let chain = ["cert.pem", "ca.pem"].map(|file| fs::read_to_string(authority.file(file)).unwrap()).concat();
    fs::write(authority.file("cert.pem"), chain).unwrap();
    let config = authority.file("config.toml");
    fs::write(&config, format!("api.listen = {:?}\n{}", sink.api, authority.toml())).unwrap();
    let (code, _, said) = events(&["--config", &config], &[]);
    assert_eq!(code, Some(0), "{said}");

    let other = Authority::new();
    for arguments in [&["--api", &api][..], &["--api", &api, "--ca", &other.file("ca.pem")]] {
        let (code, _, said) = events(arguments, &[]);
        assert!(code == Some(69) && said.contains("certificate"), "{said}");
    }
    let (code, _, said) = events(&["--api", &api, "--ca", &authority.file("key.pem")], &[]);
    assert!(code == Some(78) && said.contains("holds no certificate"), "{said}");
    // Nothing that acts was sent to one who is not believed.
    let ran = program().args(["replay", "1", "--api", &api]).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.code() == Some(69) && !said.contains("not known"), "{said}");
}

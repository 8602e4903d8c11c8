//! Files of certificates: good ones, broken ones, and how they are exchanged.

use std::os::unix::fs::symlink;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use super::names::Names;
use super::reload::{Certificates, Reload};
use super::*;

/// Signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = params("authority", 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    fn issue(&self, params: &CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn revoking(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2400, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn params(common_name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2400, 1, 1);
    params
}

/// A folder with the files of a server.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Issues a certificate for the server, and writes it with its key.
    fn certify(&self, authority: &Authority, params: &CertificateParams) -> (String, String) {
        let (cert, key) = authority.issue(params);
        let pems = (cert.pem(), key.serialize_pem());
        self.write("cert", &pems.0);
        self.write("key", &pems.1);
        pems
    }

    fn files(&self) -> TlsFiles {
        let path = |name: &str| self.0.path().join(name);
        TlsFiles {
            cert: path("cert"),
            key: path("key"),
            client_ca: None,
            client_crl: None,
            client_certificates: ClientCertificates::Required,
            reload_interval: Duration::from_secs(1),
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name_and_reason() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (cert, key) = folder.certify(&authority, &params("server", 2));
    let (_, another) = authority.issue(&params("another", 3));
    let expired = {
        let mut params = params("server", 4);
        params.not_after = date_time_ymd(2021, 1, 1);
        authority.issue(&params)
    };
    let early = {
        let mut params = params("server", 5);
        params.not_before = date_time_ymd(2399, 1, 1);
        authority.issue(&params)
    };
    let ca = folder.write("ca", &authority.pem);
    let check = |cert: &str, key: &str, crl: Option<&str>, expected: Option<(&str, &str)>| {
        folder.write("cert", cert);
        folder.write("key", key);
        let mut files = folder.files();
        if let Some(crl) = crl {
            files.client_ca = Some(ca.clone());
            files.client_crl = Some(folder.write("crl", crl));
        }
        let opened = Certificates::open(files).map_err(|error| (error.setting, error.to_string()));
        match (opened, expected) {
            (Ok(_), None) => {}
            (Err((setting, message)), Some((expected, part))) => {
                assert_eq!(setting, expected, "{message}");
                assert!(message.contains(part), "{message}");
            }
            (opened, expected) => panic!("{opened:?} is not {expected:?}"),
        }
    };
    let revoked = authority.revoking(&[7]);
    check(&cert, &key, None, None);
    check(&cert, &key, Some(&revoked), None);
    let mismatch = another.serialize_pem();
    check(
        &cert,
        &mismatch,
        None,
        Some(("tls_key", "is not the key of the certificate")),
    );
    let pem = expired.0.pem();
    let own = expired.1.serialize_pem();
    check(&pem, &own, None, Some(("tls_cert", "expired at Jan  1")));
    let (pem, own) = (early.0.pem(), early.1.serialize_pem());
    check(&pem, &own, None, Some(("tls_cert", "is not good before")));
    check("", &key, None, Some(("tls_cert", "holds no certificate")));
    check(&cert[..cert.len() / 2], &key, None, Some(("tls_cert", "")));
    check(&cert, "", None, Some(("tls_key", "")));
    check(
        &cert,
        &key,
        Some(""),
        Some(("client_crl", "holds no revocation list")),
    );
    check(
        &cert,
        &key,
        Some(&cert),
        Some(("client_crl", "holds no revocation list")),
    );
}

#[test]
fn changed_files_are_put_in_force_and_broken_ones_are_not() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (cert, key) = folder.certify(&authority, &params("server", 2));
    let certificates = Certificates::open(folder.files()).unwrap();
    let counts = || {
        let status = certificates.status();
        (status.reloads, status.failures)
    };
    let until = certificates.status().not_after_unix_seconds;
    assert_eq!(certificates.reload(), Reload::Unchanged);

    // The certificate comes before its key.
    let mut renewed = params("server", 3);
    renewed.not_after = date_time_ymd(2300, 1, 1);
    let (next, next_key) = authority.issue(&renewed);
    folder.write("cert", next.pem());
    for _ in 0..3 {
        assert!(matches!(certificates.reload(), Reload::Refused(_)));
    }
    assert_eq!(counts(), (0, 1), "told once, however often it is looked at");
    assert_eq!(certificates.status().not_after_unix_seconds, until);
    folder.write("key", next_key.serialize_pem());
    assert_eq!(certificates.reload(), Reload::Replaced);
    assert_eq!(counts(), (1, 1));
    assert!(certificates.status().not_after_unix_seconds < until);

    // Gone, then half written, then as it was.
    std::fs::remove_file(folder.files().cert).unwrap();
    assert!(matches!(certificates.reload(), Reload::Refused(_)));
    folder.write("cert", &next.pem()[..100]);
    assert!(matches!(certificates.reload(), Reload::Refused(_)));
    folder.write("cert", next.pem());
    assert_eq!(certificates.reload(), Reload::Unchanged);
    assert_eq!(counts(), (1, 3));

    folder.write("cert", cert);
    folder.write("key", key);
    assert_eq!(certificates.reload(), Reload::Replaced);
}

#[test]
fn a_swapped_symbolic_link_is_a_changed_file() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let root = folder.0.path();
    // As Kubernetes mounts a secret: FILE → ..data/FILE, ..data → ..DATE.
    for (serial, version) in [(2, "..one"), (3, "..two")] {
        let (cert, key) = authority.issue(&params("server", serial));
        std::fs::create_dir(root.join(version)).unwrap();
        std::fs::write(root.join(version).join("cert"), cert.pem()).unwrap();
        std::fs::write(root.join(version).join("key"), key.serialize_pem()).unwrap();
    }
    symlink("..one", root.join("..data")).unwrap();
    for name in ["cert", "key"] {
        symlink(Path::new("..data").join(name), root.join(name)).unwrap();
    }
    let certificates = Certificates::open(folder.files()).unwrap();
    symlink("..two", root.join("..data_tmp")).unwrap();
    std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert_eq!(certificates.reload(), Reload::Replaced);
    assert_eq!(certificates.reload(), Reload::Unchanged);
}

#[test]
fn a_client_is_checked_against_the_lists_in_force() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.certify(&authority, &params("server", 2));
    let mut files = folder.files();
    files.client_ca = Some(folder.write("ca", &authority.pem));
    files.client_crl = Some(folder.write("crl", authority.revoking(&[8])));
    let certificates = Certificates::open(files).unwrap();
    let now = Duration::from_secs(1_800_000_000);
    let chain = |serial| [authority.issue(&params("client", serial)).0.der().clone()];
    let is_good = |serial, now| certificates.check_client(&chain(serial), now).is_ok();
    assert!(is_good(7, now));
    assert!(!is_good(8, now));
    assert!(
        !is_good(7, Duration::from_secs(20_000_000_000)),
        "it has ended"
    );
    let foreign = Authority::new().issue(&params("client", 7)).0;
    let foreign = certificates.check_client(&[foreign.der().clone()], now);
    assert!(foreign.is_err());
    folder.write("crl", authority.revoking(&[7]));
    assert_eq!(certificates.reload(), Reload::Replaced);
    assert!(!is_good(7, now));
    assert!(is_good(8, now));
}

#[test]
fn names_are_read_from_subject_and_alternative_names() {
    let mut params = params("reader", 9);
    params.subject_alt_names = vec![
        SanType::DnsName("Web.Example".try_into().unwrap()),
        SanType::URI("spiffe://example/web".try_into().unwrap()),
    ];
    let (cert, _) = Authority::new().issue(&params);
    let names = Names::read(cert.der()).unwrap();
    assert_eq!(names.common_name.as_deref(), Some("reader"));
    assert_eq!(names.dns, ["web.example"]);
    assert_eq!(names.uri, ["spiffe://example/web"]);
    assert_eq!(names.holder(), "spiffe://example/web");
    assert_eq!(names.not_after.as_secs(), 13_569_465_600);
    assert!(Names::read(b"no certificate").is_none());
    // One of two names is as good as the other: neither is meant.
    params
        .distinguished_name
        .push(DnType::CustomDnType(vec![2, 5, 4, 3]), "second");
    let (cert, _) = Authority::new().issue(&params);
    assert_eq!(Names::read(cert.der()).unwrap().common_name, None);
}

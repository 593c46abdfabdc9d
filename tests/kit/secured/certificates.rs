//! A certificate authority for a test, and what it signs, as PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    pub certificate: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let path = dir.join(format!("{name}.ca.pem"));
        fs::write(&path, certificate.pem()).expect("written");
        Self {
            issuer: Issuer::new(params, key),
            dir: dir.to_owned(),
            certificate: path,
        }
    }

    /// Key and certificate in one file, and each alone beside it, for these hosts.
    pub fn sign(&self, name: &str, hosts: &[&str], expired: bool) -> PathBuf {
        let mut params = named(name, hosts);
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let both = self.dir.join(format!("{name}.pem"));
        fs::write(&both, key.serialize_pem() + &certificate.pem()).expect("written");
        fs::write(both.with_extension("key"), key.serialize_pem()).expect("written");
        fs::write(both.with_extension("crt"), certificate.pem()).expect("written");
        both
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("host names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
